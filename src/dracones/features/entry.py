"""One entry of the feature cache on disk: written row by row, checked when opened, read as memory maps."""

import io
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dracones.features.dataset import StoredFeatures

_FACTS = "entry.json"
_CHUNK = 1024**2


class DamagedEntry(ValueError):  # noqa: N818 (what it is, not an error of whoever reads it)
    """Files of an entry that are not what was written; the message says what is wrong."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Level(_Strict):
    """One level of an entry: what its file must be.

    Attributes:
        shape: of one image's features.
        checksum: CRC-32 of the rows that are in use. Against damage, not against malice: whoever can write into a cache
            can write anything.
    """

    shape: tuple[int, ...] = Field(max_length=3)
    checksum: int


class Facts(_Strict):
    """What an entry holds; written last.

    Attributes:
        rows: images that there is room for.
        count: images that could be read.
        dtype: of the numbers, as NumPy writes it.
        levels: what each file must be.
    """

    rows: int = Field(ge=1)
    count: int = Field(ge=1)
    dtype: str = Field(pattern="^<f[24]$")
    levels: tuple[Level, ...] = Field(min_length=1)

    def text(self) -> str:
        """As it stands in its file, with a checksum of its own."""
        content = self.model_dump_json()
        return json.dumps({"facts": content, "checksum": zlib.crc32(content.encode())})

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `text` wrote.

        Raises:
            DamagedEntry: something else.
            FileNotFoundError: nothing.
        """
        try:
            outer = json.loads(path.read_bytes())
            content, checksum = outer["facts"], outer["checksum"]
            if zlib.crc32(content.encode()) == checksum:
                return cls.model_validate_json(content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedEntry(f"{path.name} cannot be read") from error
        raise DamagedEntry(f"{path.name} was altered")


class EntryWriter:
    """Writes the levels of an entry, images in order, and its facts last.

    Plainly, not through a memory map: where the disk is full a write says so, and a memory map ends the process.

    Args:
        folder: to write in.
        shapes: of one image's features, per level.
        kind: of the numbers.
        count: images at most.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]], kind: np.dtype[Any], count: int) -> None:
        self.folder = folder
        self.kind = kind
        self.rows = count
        self.shapes = tuple(shapes)
        self.count = 0
        self._files: list[BinaryIO] = []
        self._sizes: list[int] = []
        self._checksums = [0] * len(self.shapes)
        for index, shape in enumerate(self.shapes):
            file = (folder / f"level{index}.npy").open("wb")
            self._files.append(file)
            header = _header(kind, count, shape)
            file.write(header)
            self._sizes.append(len(header) + count * _row_bytes(kind, shape))

    def write(self, levels: Sequence[NDArray[np.float32]]) -> None:
        """Append the features of some images.

        Raises:
            OverflowError: they do not fit the kind of number.
            OSError: the disk is full.
        """
        for index, (file, level) in enumerate(zip(self._files, levels, strict=True)):
            if not np.isfinite(level).all() or np.abs(level).max(initial=0) > np.finfo(self.kind).max:
                raise OverflowError
            rows = np.ascontiguousarray(level, dtype=self.kind)
            file.write(rows.data)
            self._checksums[index] = zlib.crc32(rows.data, self._checksums[index])
        self.count += len(levels[0])

    def finish(self) -> None:
        """Make the entry whole: rows that no image came for stay empty, everything is on the disk."""
        for file, size in zip(self._files, self._sizes, strict=True):
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
        levels = tuple(
            Level(shape=shape, checksum=checksum) for shape, checksum in zip(self.shapes, self._checksums, strict=True)
        )
        facts = Facts(rows=self.rows, count=self.count, dtype=self.kind.str, levels=levels)
        with (self.folder / _FACTS).open("wb") as out:
            out.write(facts.text().encode())
            out.flush()
            os.fsync(out.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            with suppress(OSError):  # what is left in a buffer when the disk is full
                file.close()


# Entries that this process has read through, by what their files looked like then: they are not read twice.
_verified: dict[Path, tuple[tuple[int, ...], ...]] = {}


def open_entry(entry: Path, *, written_here: bool = False) -> StoredFeatures | None:
    """The entry, marked as used now; None where there is none.

    The first opening in a process reads the entry through and compares it with its checksums, at the speed of the
    disk; what is read then is what the first use would have waited for.

    Args:
        entry: its folder.
        written_here: this process has just written it, so the numbers need no second look.

    Raises:
        DamagedEntry: files missing, of another size, or altered.
        OSError: it cannot be read.
    """
    try:
        facts = Facts.read(entry / _FACTS)
    except (FileNotFoundError, NotADirectoryError):
        if entry.is_dir():
            raise DamagedEntry(f"{_FACTS} is missing") from None
        return None
    levels = [_opened(entry / f"level{index}.npy", facts, level) for index, level in enumerate(facts.levels)]
    look = tuple(_look(entry / name) for name in (_FACTS, *(f"level{i}.npy" for i in range(len(levels)))))
    if not written_here and _verified.get(entry) != look:
        for index, (level, stored) in enumerate(zip(facts.levels, levels, strict=True)):
            if _checksum(stored) != level.checksum:
                raise DamagedEntry(f"level{index}.npy was altered")
    with suppress(OSError):  # a cache may be read where it cannot be written
        os.utime(entry / _FACTS)
    _verified[entry] = (_look(entry / _FACTS), *look[1:])
    return StoredFeatures(levels, entry.name)


def _opened(path: Path, facts: Facts, level: Level) -> NDArray[Any]:
    """A map of the rows in use; the file must be of the very header and size that were written."""
    kind = np.dtype(facts.dtype)
    header = _header(kind, facts.rows, level.shape)
    size = len(header) + facts.rows * _row_bytes(kind, level.shape)
    try:
        with path.open("rb") as file:
            found, start = os.fstat(file.fileno()).st_size, file.read(len(header))
    except FileNotFoundError:
        raise DamagedEntry(f"{path.name} is missing") from None
    if found != size or start != header or facts.count > facts.rows:
        raise DamagedEntry(f"{path.name} has {found} bytes, expected {size} with the header that was written")
    return np.memmap(path, kind, "r", len(header), (facts.rows, *level.shape))[: facts.count]


def _checksum(rows: NDArray[Any]) -> int:
    flat, checksum = rows.reshape(-1).view(np.uint8), 0
    for start in range(0, len(flat), _CHUNK):
        checksum = zlib.crc32(flat[start : start + _CHUNK].data, checksum)
    return checksum


def _look(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _header(kind: np.dtype[Any], count: int, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def _row_bytes(kind: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) * kind.itemsize


def entries(folder: Path) -> list[Path]:
    """Finished entries, least recently used first."""
    found = [path.parent for path in folder.glob(f"*/{_FACTS}")]
    return sorted((path for path in found if not path.name.startswith(".")), key=last_use)


def last_use(entry: Path) -> float:
    """When the entry was opened last; 0 where it is gone."""
    with suppress(FileNotFoundError):
        return (entry / _FACTS).stat().st_mtime
    return 0.0


def size_of(entry: Path) -> int:
    """Bytes on disk."""
    total = 0
    for path in entry.glob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
