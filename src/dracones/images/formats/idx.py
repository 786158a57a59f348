"""The idx files of MNIST and its kin, packed (`.gz`) or not (LeCun, Cortes & Burges, "The MNIST database")."""

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from dracones.images.formats.arrays import array_source, checked_labels
from dracones.images.limits import Limits
from dracones.images.sources import ArraySource

_IMAGES = re.compile(r"(?P<split>.+?)[-.]images[-.]idx3-ubyte(\.gz)?$")
_SPLIT_NAMES = {"t10k": "test"}
_CHUNK = 1 << 24


def idx_splits(folder: Path) -> dict[str, Path]:
    """Split name (`train`, `test`, ...) to image file, of the idx files directly in `folder`."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), reverse=True):  # unpacked after packed, so that it wins
        match = _IMAGES.match(path.name)
        if match and path.is_file():
            found[_SPLIT_NAMES.get(match["split"], match["split"])] = path
    return dict(sorted(found.items(), key=lambda item: (item[0] != "train", item[0])))


def is_idx(path: Path) -> bool:
    """Whether the file's name is that of an idx file of bytes."""
    return re.search(r"idx\d-ubyte(\.gz)?$", path.name) is not None


def idx_source(path: Path, name: str, limits: Limits) -> ArraySource:
    """Images of one idx file with the labels of the file beside it, if there is one."""
    images = read_idx(path, limits)
    if images.ndim != 3:
        raise ValueError(f"{path} holds an array of shape {images.shape}; images [N, H, W] are expected")
    match = _IMAGES.match(path.name)
    labels = None
    if match:
        stem = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
        beside = [path.with_name(stem + suffix) for suffix in ("", ".gz")]
        existing = next((p for p in beside if p.is_file()), None)
        labels = None if existing is None else checked_labels(read_idx(existing, limits), len(images), str(existing))
    return array_source(images, name, layout="NHW", labels=labels)


def read_idx(path: Path, limits: Limits) -> np.ndarray:
    """The uint8 array in an idx file.

    Raises:
        ValueError: not an idx file of bytes, larger than the limit by its header, or cut off.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:3] != b"\x00\x00\x08" or not 1 <= head[3] <= 4:
                raise ValueError(f"{path} is no idx file of unsigned bytes: it starts with {head!r}")
            stated = stream.read(4 * head[3])
            if len(stated) < 4 * head[3]:
                raise ValueError(f"{path} is cut off in its header")
            shape = tuple(np.frombuffer(stated, dtype=">u4").tolist())
            size = math.prod(shape)
            if size > limits.max_array_bytes:
                raise ValueError(
                    f"{path}: its header states {size:,} bytes, more than the {limits.max_array_bytes:,} of "
                    "Limits(max_array_bytes=...)"
                )
            data = _read_at_most(stream, size)
            if len(data) != size:
                raise ValueError(
                    f"{path} is cut off: {len(data):,} of the {size:,} bytes its header states for {shape}"
                )
            if stream.read(1):
                raise ValueError(f"{path} goes on after the {size:,} bytes its header states for {shape}")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _read_at_most(stream: object, size: int) -> bytearray:
    """Up to `size` bytes, grown piece by piece: a header that lies about the size costs no memory."""
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(_CHUNK, size - len(data)))  # type: ignore[attr-defined]
        if not piece:
            break
        data += piece
    return data
