"""One entry of the feature cache on disk: written row by row, opened as memory maps."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from dracones.features.dataset import StoredFeatures

_FACTS = "entry.json"


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
        self.count = 0
        self._files: list[BinaryIO] = []
        self._sizes: list[int] = []
        for index, shape in enumerate(shapes):
            file = (folder / f"level{index}.npy").open("wb")
            self._files.append(file)
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            self._sizes.append(file.tell() + count * int(np.prod(shape)) * kind.itemsize)

    def write(self, levels: Sequence[NDArray[np.float32]]) -> None:
        """Append the features of some images.

        Raises:
            OverflowError: they do not fit the kind of number.
            OSError: the disk is full.
        """
        for file, level in zip(self._files, levels, strict=True):
            if not np.isfinite(level).all() or np.abs(level).max(initial=0) > np.finfo(self.kind).max:
                raise OverflowError
            file.write(np.ascontiguousarray(level, dtype=self.kind).data)
        self.count += len(levels[0])

    def finish(self) -> None:
        """Make the entry whole: rows that no image came for stay empty, everything is on the disk."""
        for file, size in zip(self._files, self._sizes, strict=True):
            file.truncate(size)
            file.flush()
            os.fsync(file.fileno())
        (self.folder / _FACTS).write_text(json.dumps({"count": self.count, "levels": len(self._files)}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            with suppress(OSError):  # what is left in a buffer when the disk is full
                file.close()


def open_entry(entry: Path) -> StoredFeatures | None:
    """The entry, marked as used now; None where there is none or it cannot be read (it is then removed)."""
    try:
        facts = json.loads((entry / _FACTS).read_text())
        levels = [np.load(entry / f"level{i}.npy", mmap_mode="r")[: facts["count"]] for i in range(facts["levels"])]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    with suppress(OSError):  # a cache may be read where it cannot be written
        os.utime(entry / _FACTS)
    return StoredFeatures(levels, entry.name)


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
