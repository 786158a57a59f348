"""Several sources one after the other, as one."""

from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from dracones.images.sources import ImageSource


class JoinedSource(ImageSource):
    """The images of several sources in order, each named below its source."""

    def __init__(self, sources: Sequence[ImageSource], name: str) -> None:
        self.sources = list(sources)
        self.name = name
        self._ends = np.cumsum([0, *map(len, self.sources)])
        labels = [source.labels for source in self.sources]
        known = [each for each in labels if each is not None]
        self.labels = np.concatenate(known) if len(known) == len(labels) else None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _at(self, index: int) -> tuple[ImageSource, int]:
        place = int(np.searchsorted(self._ends, index, side="right")) - 1
        return self.sources[place], index - int(self._ends[place])

    @override
    def item_name(self, index: int) -> str:
        source, place = self._at(index)
        name = source.item_name(place)
        return name if name.startswith(source.name) else f"{source.name}/{name}"

    @override
    def notes(self) -> list[str]:
        return [note for source in self.sources for note in source.notes()]

    @override
    def read(self, index: int) -> np.ndarray:
        source, place = self._at(index)
        return source.read(place)

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        source, place = self._at(index)
        return source.shape(place)

    @override
    def digest(self, index: int) -> bytes:
        source, place = self._at(index)
        return source.digest(place)
