"""Plain numeric arrays out of a Matlab file of level 5, with every length checked.

scipy reads more kinds of value, but a damaged file makes it crash the whole process (scipy 1.17, `loadmat`).

Reference: The MathWorks, "MAT-File Format", level 5.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from dracones.images.limits import Limits

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_VALUES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x0800


def read_matlab_arrays(path: Path, limits: Limits) -> dict[str, np.ndarray | None]:
    """Name to array, in Matlab's own axis order; None in place of a value that is no plain numeric array.

    Raises:
        ValueError: no such file of level 5, damaged, cut off, or larger than the limit.
    """
    size = path.stat().st_size
    if size > limits.max_array_bytes:
        raise ValueError(
            f"it has {size:,} bytes, more than the {limits.max_array_bytes:,} of Limits(max_array_bytes=...)"
        )
    data = path.read_bytes()
    if data.startswith(b"MATLAB 7.3"):
        raise ValueError("it is of version 7.3 (HDF5); save it with '-v7'")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if len(data) < _HEADER or order is None:
        raise ValueError("it does not begin like a Matlab file of level 5")
    found: dict[str, np.ndarray | None] = {}
    position = _HEADER
    while position < len(data):
        kind, body, position = _element(data, position, order, padded=False)
        if kind == _COMPRESSED:
            kind, body, _ = _element(_inflated(body, limits), 0, order, padded=False)
        if kind == _MATRIX:
            name, array = _matrix(body, order)
            found[name] = array
    return found


def _element(data: bytes, start: int, order: str, *, padded: bool = True) -> tuple[int, bytes, int]:
    """(type, body, where the next begins) of the element at `start`; up to 4 bytes may lie in the tag itself."""
    tag = data[start : start + 8]
    if len(tag) < 8:
        raise ValueError("it is cut off")
    kind, size = struct.unpack(f"{order}II", tag)
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        body, end = tag[4 : 4 + size], start + 8
    else:
        body = data[start + 8 : start + 8 + size]
        end = start + 8 + (-(-size // 8) * 8 if padded else size)
    if len(body) < size:
        raise ValueError(f"it is cut off: {len(body):,} of {size:,} bytes of an element are there")
    return kind, body, end


def _inflated(body: bytes, limits: Limits) -> bytes:
    unpack = zlib.decompressobj()
    try:
        content = unpack.decompress(body, limits.max_array_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"a compressed element is damaged: {error}") from error
    if len(content) > limits.max_array_bytes:
        raise ValueError(
            f"an array unpacks to more than the {limits.max_array_bytes:,} bytes of Limits(max_array_bytes=...)"
        )
    return content


def _matrix(body: bytes, order: str) -> tuple[str, np.ndarray | None]:
    _, flags, position = _element(body, 0, order)
    _, sizes, position = _element(body, position, order)
    _, name, position = _element(body, position, order)
    if len(flags) < 4 or len(sizes) % 4:
        raise ValueError("an array's description is damaged")
    text = name.decode("latin1")
    about = struct.unpack(f"{order}I", flags[:4])[0]
    if about & 0xFF not in _NUMERIC_CLASSES or about & _COMPLEX:
        return text, None
    kind, values, _ = _element(body, position, order)
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    if kind not in _VALUES:
        raise ValueError(f"array {text!r} holds values of an unknown type ({kind})")
    dtype = np.dtype(order + _VALUES[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"array {text!r} of shape {shape} does not fit its {len(values):,} bytes")
    return text, np.frombuffer(values, dtype).reshape(shape, order="F")
