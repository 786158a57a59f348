"""A file's three digests: what they cover, what they leave out, and that equal content gives equal bytes."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dracones.files import storage

HEADER = {"method": "none", "config": {"b": 1, "a": [1.5, None]}}
TENSORS = {"w": torch.arange(6.0).view(2, 3), "empty": torch.empty(0, 4), "count": torch.tensor(3)}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    digests = storage.write(path, HEADER, TENSORS, {"seconds": 1.5})
    with storage.opened(path) as stored:
        stored.verify()
        assert (stored.header, stored.origin, stored.digests) == (HEADER, {"seconds": 1.5}, digests)
    _, tensors = storage.read(path)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert load_file(path).keys() == TENSORS.keys()  # any reader of safetensors reads it


def test_the_models_digest_leaves_the_origin_out_and_nothing_else(tmp_path):
    path = tmp_path / "x.safetensors"
    reference = storage.write(path, HEADER, TENSORS, {"seconds": 1.5})
    assert storage.write(path, HEADER, TENSORS, {"seconds": 2.5}).model == reference.model
    others = [
        ({**HEADER, "method": "some"}, TENSORS),
        (HEADER, {**TENSORS, "w": TENSORS["w"].view(3, 2)}),
        (HEADER, {**TENSORS, "w": TENSORS["w"].double()}),
        (HEADER, {**TENSORS, "w": TENSORS["w"] + 1e-6}),
        (HEADER, {"v" if name == "w" else name: tensor for name, tensor in TENSORS.items()}),
    ]
    found = {storage.write(path, *parts).model for parts in others}
    assert len(found | {reference.model}) == 6


def test_equal_content_gives_equal_bytes_in_any_process(tmp_path):
    code = (
        "import sys, torch; from dracones.files import storage; "
        "storage.write(sys.argv[1], {'b': 1, 'a': {'d': 1, 'c': 2}}, {n: torch.ones(2) for n in 'xyzabc'}, {'s': 1})"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=environment)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("part", ["tensors", "header", "record of origin"])
def test_an_altered_part_is_named(tmp_path, part):
    path = tmp_path / "x.safetensors"
    storage.write(path, HEADER, TENSORS, {"seconds": 1.5})
    whole = path.read_bytes()
    if part == "tensors":
        whole = whole[:-1] + bytes([whole[-1] ^ 1])
    elif part == "header":
        whole = whole.replace(b'\\"b\\":1', b'\\"b\\":2')
    else:
        whole = whole.replace(b"1.5}", b"2.5}")
    path.write_bytes(whole)
    with (
        storage.opened(path) as stored,
        pytest.raises(ValueError, match=rf"x\.safetensors was altered .* digest of its {part} differs"),
    ):
        stored.verify()


def test_numbers_that_are_none_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        storage.write(tmp_path / "x", {"threshold": float("nan")}, {})
    assert not list(tmp_path.iterdir())


def test_tensors_that_share_memory_are_written_each(tmp_path):
    shared = torch.arange(10.0)
    storage.write(tmp_path / "x", {}, {"whole": shared, "again": shared, "part": shared[2:4]})
    _, tensors = storage.read(tmp_path / "x")
    assert torch.equal(tensors["again"], shared)
    assert torch.equal(tensors["part"], shared[2:4])


def test_a_model_that_is_not_there_names_what_is(tmp_path):
    def refusal(path):
        with pytest.raises(FileNotFoundError) as caught, storage.opened(path):
            pass
        return str(caught.value)

    assert "make one with `dracones fit" in refusal(tmp_path / "bottle.safetensors")
    (tmp_path / "bottles.safetensors").write_bytes(b"x")
    assert "did you mean" in refusal(tmp_path / "bottle.safetensors")
    assert "there are bottles.safetensors" in refusal(tmp_path / "screw.safetensors")
    assert "there is no folder" in refusal(tmp_path / "no" / "bottle.safetensors")
    assert "it is a folder" in refusal(tmp_path)
