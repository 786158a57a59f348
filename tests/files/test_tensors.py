"""Reading safetensors: the same as the library where the library wrote it, and nothing else is accepted."""

import io
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dracones.files.tensors import read_table, read_tensor, strict_json

EVERY_TYPE = {
    "double": torch.randn(3, 2, dtype=torch.float64),
    "float": torch.randn(2, 3, 4),
    "half": torch.randn(5).half(),
    "brain": torch.randn(5).bfloat16(),
    "long": torch.arange(4),
    "int": torch.arange(4, dtype=torch.int32),
    "short": torch.arange(4, dtype=torch.int16),
    "signed": torch.arange(-2, 2, dtype=torch.int8),
    "byte": torch.arange(4, dtype=torch.uint8),
    "truth": torch.tensor([True, False]),
    "scalar": torch.tensor(1.5),
    "none": torch.empty(0, 3),
}


@pytest.fixture
def written(tmp_path):
    save_file(EVERY_TYPE, tmp_path / "x.safetensors", metadata={"dracones": "{}"})
    return tmp_path / "x.safetensors"


def test_every_type_is_read_as_the_library_reads_it(written):
    with written.open("rb") as file:
        table = read_table(file)
        got = {name: read_tensor(file, place) for name, place in table.places.items()}
    wanted = load_file(written)
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        assert torch.equal(got[name], tensor)
    assert table.bytes == sum(tensor.nbytes for tensor in wanted.values())


def test_no_byte_of_the_header_is_without_meaning(written):
    """Whatever one byte of the header becomes, the file is refused or says something else; none goes unseen."""
    whole = written.read_bytes()
    with written.open("rb") as file:
        original = read_table(file)
    length = 8 + int.from_bytes(whole[:8], "little")
    for place in range(length):
        for flip in (1, 32, 128):
            data = bytearray(whole)
            data[place] ^= flip
            try:
                assert read_table(io.BytesIO(bytes(data))) != original, place
            except ValueError:
                continue


def made(header, data=b"", pad=True):
    text = json.dumps(header, separators=(",", ":")) if not isinstance(header, str) else header
    text += " " * (-len(text) % 8) if pad else ""
    return io.BytesIO(len(text).to_bytes(8, "little") + text.encode() + data)


def place(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (io.BytesIO(b""), "does not fit the file"),
        (io.BytesIO(b"\xff" * 16), "does not fit the file"),
        (made({"a": place()}), "may be truncated"),
        (made({"a": place()}, bytes(9)), r"has \d+ bytes where"),
        (made({"a": place(offsets=(0, 4))}, bytes(8)), "takes 8 bytes"),
        (made({"a": place(shape=(2**40, 2**40))}, bytes(8)), "takes"),
        (made({"a": place(shape=(-2,))}, bytes(8)), "natural numbers"),
        (made({"a": place(shape=(True,))}, bytes(8)), "natural numbers"),
        (made({"a": place(dtype="F8_E4M3")}, bytes(8)), "unknown dtype 'F8_E4M3'"),
        (made({"a": place(), "b": place()}, bytes(8)), "'b' does not begin where"),
        (made({"a": {"dtype": "F32"}}), "no dtype, shape and offsets"),
        (made('{"a": 1}'), "not written as safetensors writes it"),
        (made('{"a":1,"a":2}'), "given twice"),
        (made("[" * 100_000 + "]" * 100_000), "nested too deeply"),
        (made({"a": place()}, bytes(8), pad=False), "not written as"),
    ],
)
def test_what_is_wrong_is_said(file, message):
    with pytest.raises(ValueError, match=message):
        read_table(file)


def test_a_truth_value_that_is_neither_is_refused():
    file = made({"a": place("BOOL", (2,), (0, 2))}, b"\x01\x02")
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        read_tensor(file, read_table(file).places["a"])


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "1e999", "9" * 30, "18446744073709551616", '{"a":1,"a":1}', "[" * 10**5]
)
def test_json_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"JSON|range|twice|deeply"):
        strict_json(text)
