"""Images in a tar file, as WebDataset lays them out: read at their place, never unpacked."""

import os
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from typing_extensions import override

from dracones.images.limits import Limits, Skipped, UnreadableImage
from dracones.images.name_list import NameList
from dracones.images.names import shown
from dracones.images.reading import SUFFIXES
from dracones.images.sources import BytesSource

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_LABEL = 20


class TarSource(BytesSource):
    """The image files of an uncompressed tar; the files beside them (`.cls`, `.json`) belong to them and are no images.

    Where every image has a `.cls` of its own name (WebDataset's class, a whole number) these are the labels. Only
    headers are read at first: about 30 bytes and the name of each image are kept.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.name = shown(path.name)
        self.limits = limits
        self.damage: list[Skipped] = []
        self._others: Counter[str] = Counter()
        self._offsets, self._sizes = array("q"), array("q")
        labels: dict[str, int] = {}
        with path.open("rb") as file:
            self._names = NameList(self._images(file, labels))
        self._descriptor = os.open(path, os.O_RDONLY)
        self.labels = self._labels(labels)

    def __len__(self) -> int:
        return len(self._names)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)

    def _images(self, file: BinaryIO, labels: dict[str, int]) -> Iterator[str]:
        for name, offset, size in self._members(file):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name in an archive is no path of this system
            if suffix in SUFFIXES:
                self._offsets.append(offset)
                self._sizes.append(size)
                yield name
                continue
            self._others[suffix or "no suffix"] += 1
            if suffix == ".cls" and size <= _LONGEST_LABEL:
                file.seek(offset)
                text = file.read(size).strip()
                if text.isdigit():
                    labels[_key(name)] = int(text)

    def _members(self, file: BinaryIO) -> Iterator[tuple[str, int, int]]:
        """Name, place and size of every regular file; where a header is damaged, of those behind it too."""
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            # Only its bookkeeping of places and long names is used: by itself it would keep every member in memory.
            archive = tarfile.TarFile(fileobj=file, mode="r", errorlevel=0)
        except (tarfile.TarError, ValueError) as error:
            raise ValueError(f"{self.path} is no plain tar file ({error}); unpack its compression first") from error
        archive.offset, lost = 0, False
        while True:
            at = archive.offset
            file.seek(at)
            try:
                member = tarfile.TarInfo.fromtarfile(archive)
            except (tarfile.TarError, ValueError, OverflowError):
                member = None
            if member is None or archive.offset <= at:
                if self._ends(file, at):
                    break
                if not lost:
                    self._report(f"is damaged at byte {at:,}: what lies there is lost, reading goes on behind it")
                archive.offset, lost = at + _BLOCK, True
                continue
            lost = False
            if not member.isreg() or member.issparse():
                if os.path.splitext(member.name)[1].lower() in SUFFIXES:  # noqa: PTH122 - see above
                    self._report("holds it as a link or with holes, which is not read", member.name)
            elif member.offset_data + member.size > end:
                self._report("is cut off inside it", member.name)
                break
            else:
                yield member.name, member.offset_data, member.size

    def _ends(self, file: BinaryIO, at: int) -> bool:
        """Whether the archive ends here, with two blocks of zeros; an end without them, or more behind, is reported."""
        file.seek(at)
        mark = file.read(2 * _BLOCK)
        if len(mark) < _BLOCK:
            self._report(f"ends after {at:,} bytes without the mark of its end: it may be cut off")
            return True
        if mark.strip(b"\0"):
            return False
        while behind := file.read(2**20):
            if behind.strip(b"\0"):
                self._report(f"has more behind the mark of its end at byte {at:,}, which is not read")
                break
        return True

    def _report(self, what: str, name: str | None = None) -> None:
        label = self.name if name is None else f"{self.name}/{shown(name)}"
        self.damage.append(Skipped(label, f"the archive {what}"))

    def _labels(self, found: dict[str, int]) -> np.ndarray | None:
        if not found or len(found) != len(self._names):
            return None
        values = [found.get(_key(name), -1) for name in self._names]
        return None if min(values) < 0 else np.array(values, dtype=np.int64)

    @override
    def item_name(self, index: int) -> str:
        return shown(self._names[index])

    @override
    def names_digest(self) -> str:
        return self._names.digest()

    @override
    def notes(self) -> list[str]:
        if not self._others:
            return []
        listed = ", ".join(f"{count} {suffix}" for suffix, count in self._others.most_common(5))
        return [f"{self.name} holds files beside its images, which were not scored: {listed}"]

    def _bytes(self, index: int) -> bytes:
        name, size = self.item_name(index), self._sizes[index]
        if size == 0:
            raise UnreadableImage(name, "the file is empty")
        if size > self.limits.max_file_bytes:
            raise UnreadableImage(
                name,
                f"the file has {size:,} bytes, more than the limit of {self.limits.max_file_bytes:,} (max_file_bytes)",
            )
        try:
            data = os.pread(self._descriptor, size, self._offsets[index])
        except OSError as error:
            raise UnreadableImage(name, f"the archive cannot be read: {error.strerror or error}") from error
        if len(data) < size:
            raise UnreadableImage(name, "the archive was cut off while it was read")
        return data


def _key(name: str) -> str:
    """WebDataset's key of a sample: the name up to the first dot behind the last slash."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.split('.', 1)[0]}"
