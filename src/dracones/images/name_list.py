"""A million names in little memory."""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from typing_extensions import override


class NameList(Sequence[str]):
    """Names one after the other as bytes, about their own length and 8 bytes each; a list of paths takes ten times it.

    Example:
        >>> names = NameList(["a.png", "b/c.png"])
        >>> len(names), names[1], list(names)
        (2, 'b/c.png', ['a.png', 'b/c.png'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        text, ends = bytearray(), array("q", [0])
        for name in names:
            # Names of files may hold bytes that are no text; they come back as they were.
            text += os.fsencode(name)
            ends.append(len(text))
        self._text, self._ends = bytes(text), np.frombuffer(ends, dtype=np.int64)

    @override
    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    @override
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        return os.fsdecode(self._text[self._ends[place] : self._ends[place + 1]])

    @override
    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def digest(self) -> str:
        """A hash of all names in their order."""
        state = hashlib.blake2b(self._text, digest_size=20)
        state.update(self._ends.tobytes())
        return state.hexdigest()


class PathsBelow(Sequence[Path]):
    """Files below a folder by their names, as paths when asked for.

    Example:
        >>> PathsBelow(Path("parts"), NameList(["a.png"]))[0].as_posix()
        'parts/a.png'
    """

    def __init__(self, root: Path, names: NameList) -> None:
        self.root, self.names = root, names

    @override
    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    @override
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self.root / name for name in self.names[index]]
        return self.root / self.names[index]
