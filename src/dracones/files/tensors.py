"""The tensors of a safetensors file: where they lie, checked to the byte; written, and read one at a time.

The `safetensors` library maps a whole file into memory and copies out of the map, which takes twice the file's size and
ends the process if the file shrinks meanwhile. This reads each tensor straight into memory of its own, and refuses
every file whose header is not, byte for byte, what the library writes: no byte is without meaning, so none can be
altered unseen.

Reference: the format's description, https://huggingface.co/docs/safetensors.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LARGEST_HEADER = 32 * 1024**2
_CHUNK = 4 * 1024**2


@dataclass(frozen=True)
class Place:
    """One tensor of a file: its type, its shape, and the bytes of the file that hold it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    length: int


@dataclass(frozen=True)
class Table:
    """What the header of a safetensors file says: texts under ``metadata``, and where each tensor lies."""

    metadata: dict[str, str]
    places: dict[str, Place]

    @property
    def bytes(self) -> int:
        """Size of all tensors together."""
        return sum(place.length for place in self.places.values())


def described(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """What a digest takes in before a tensor's bytes, so that no two tensors can trade places.

    >>> described("state.mean", torch.float32, (3, 1))
    b'state.mean|F32|[3, 1]|'
    """
    return f"{name}|{_NAMES[dtype]}|{list(shape)}|".encode()


def read_table(file: BinaryIO) -> Table:
    """Read and check the header of an open file.

    Raises:
        ValueError: what is wrong with it; nothing has been allocated.
    """
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(size - 8, _LARGEST_HEADER):
        raise ValueError("its header does not fit the file, which may be truncated")
    text = file.read(length).decode("utf-8")
    parsed = strict_json(text)
    written = json.dumps(parsed, separators=(",", ":"), ensure_ascii=False)
    if (
        not isinstance(parsed, dict)
        or len(text.encode()) % 8
        or text.rstrip(" ") != written
        or len(text) - len(written) > 7
    ):
        raise ValueError("its header is not written as safetensors writes it")
    metadata = parsed.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no table of texts")
    places, end = {}, 8 + length
    for name, entry in parsed.items():
        places[name] = _place(name, entry, 8 + length)
        if places[name].start != end:
            raise ValueError(f"tensor {name!r} does not begin where the one before it ends")
        end += places[name].length
    if end != size:
        raise ValueError(f"it has {size} bytes where its header speaks of {end}; it may be truncated")
    return Table(metadata, places)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: the same tensors and metadata give the same bytes, in any process.

    The library writes beside the path first, under a name of its own that a kill would leave for ever. Widest types
    come first, so that every tensor is aligned.

    Args:
        path: a temporary file, to be renamed when it is whole.
        tensors: contiguous, on the CPU.
        metadata: texts by name.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(raw_bytes(tensors[name]))


def read_tensor(file: BinaryIO, place: Place) -> Tensor:
    """One tensor, in memory of its own.

    Raises:
        ValueError: the file ends too early, or a truth value is neither 0 nor 1.
    """
    raw = torch.empty(place.length, dtype=torch.uint8)
    file.seek(place.start)
    if place.length and file.readinto(raw.numpy().data) != place.length:  # type: ignore[attr-defined]
        raise ValueError("it ends before its last tensor; it may be truncated")
    if place.dtype == torch.bool and place.length and int(raw.max()) > 1:
        raise ValueError("it holds a truth value that is neither 0 nor 1")
    return raw.view(place.dtype).reshape(place.shape)


def raw_chunks(file: BinaryIO, place: Place) -> Iterator[bytes]:
    """The bytes of one tensor, piece by piece: for a digest without the tensor."""
    file.seek(place.start)
    for start in range(0, place.length, _CHUNK):
        wanted = min(_CHUNK, place.length - start)
        piece = file.read(wanted)
        if len(piece) != wanted:
            raise ValueError("it ends before its last tensor; it may be truncated")
        yield piece


def raw_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")


def strict_json(text: str) -> Any:
    """JSON without what JSON does not have: no NaN, no infinity, no number beyond 64 bits, no name given twice.

    >>> strict_json('{"threshold": 1e999}')
    Traceback (most recent call last):
        ...
    ValueError: the number 1e999 is out of range

    Raises:
        ValueError: not such JSON, or nested too deeply.
    """
    try:
        return json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _place(name: str, entry: Any, base: int) -> Place:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} has no dtype, shape and offsets")
    dtype, shape, offsets = _DTYPES.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if dtype is None:
        raise ValueError(f"tensor {name!r} has the unknown dtype {entry['dtype']!r}")
    if not _natural(shape) or not _natural(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has a shape or offsets that are no natural numbers")
    length = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != length:
        raise ValueError(f"tensor {name!r} of shape {shape} takes {length} bytes, and {offsets} are given to it")
    return Place(dtype, tuple(shape), base + offsets[0], length)


def _natural(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 16 and all(type(each) is int and each >= 0 for each in values)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:40]} is out of range")
    return number


def _bounded(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the number {digits[:40]} is out of range")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is given twice")
    return table
