"""Scores of any number of images in pieces: one shard of images goes in, one whole table comes out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dracones.distributed.rows import COLUMNS, Tally, row_of
from dracones.images.limits import Skipped
from dracones.images.paths import shards_of

MANIFEST = "manifest.jsonl"


class Shard(NamedTuple):
    """A piece of the images.

    Attributes:
        name: of its table, without the ending.
        data: what is opened.
        places: the range of it that is scored; ``None`` for all.
    """

    name: str
    data: str
    places: tuple[int, int] | None = None

    def table(self, folder: Path, kind: str) -> Path:
        """Where its scores go."""
        return folder / f"{self.name}{kind}"


class Plan(NamedTuple):
    """All shards, and a hash that changes with the list of images."""

    shards: list[Shard]
    digest: str


def plan(data: str, size: int, open_images: Callable[[str], Any]) -> Plan:
    """Shards of what ``data`` names: its tar and Parquet files, or else runs of ``size`` images of a set.

    Files count by name and size, images by name: a list that grows is another list.
    """
    files = shards_of(data)
    state = hashlib.blake2b(digest_size=20)
    if files:
        root = Path(data) if Path(data).is_dir() else files[0].parent
        inside = all(file.is_relative_to(root) for file in files)
        names = [file.relative_to(root).as_posix() if inside else file.as_posix().lstrip("/") for file in files]
        for name, file in zip(names, files, strict=True):
            state.update(f"{name}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        return Plan([Shard(name, str(file)) for name, file in zip(names, files, strict=True)], state.hexdigest())
    images = open_images(data)
    state.update(f"{size} {images.names_digest()}".encode())
    runs = [(first, min(first + size, len(images))) for first in range(0, len(images), size)]
    return Plan([Shard(f"part-{i:06}", data, run) for i, run in enumerate(runs)], state.hexdigest())


@dataclass
class ShardScorer:
    """Scores shards one after the other with one detector.

    Args:
        detector: fitted, or an exported file.
        open_images: from what a shard names to a collection.
        folder: where tables go.
        kind: of table: `.csv`, `.jsonl` or `.parquet`.
        batch_size: images scored together.
    """

    detector: Any
    open_images: Callable[[str], Any]
    folder: Path
    kind: str
    batch_size: int
    _opened: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def score(self, shard: Shard) -> dict[str, Any]:
        """Write the shard's table, whole or not at all; returns its counts, or ``failed`` where it cannot be opened.

        Raises:
            OSError: the disk refuses.
            ValueError: scores that are not numbers.
        """
        try:
            images, places, beside = self._images(shard)
        except (ValueError, OSError) as error:
            return {"failed": f"{shard.data}: {error}"}
        tally = Tally(highest=0)
        from dracones.report import write_rows

        table = shard.table(self.folder, self.kind)
        table.parent.mkdir(parents=True, exist_ok=True)
        write_rows(table, COLUMNS, self._rows(images, places, beside, tally))
        return tally.counts()

    def _images(self, shard: Shard) -> tuple[Any, tuple[int, int], Sequence[Skipped]]:
        if shard.places is None:
            images = self.detector.adopt(self.open_images(shard.data))
            return images, (0, len(images)), images.skipped
        # Runs of one set: it is listed once for all of them.
        if shard.data not in self._opened:
            self._opened = {shard.data: self.detector.adopt(self.open_images(shard.data))}
        whole = self._opened[shard.data]
        first, end = shard.places
        if end > len(whole):
            raise ValueError(f"it has {len(whole)} images where {end} were expected: the list has changed")
        return whole, shard.places, whole.skipped if first == 0 else ()

    def _rows(
        self, images: Any, places: tuple[int, int], beside: Sequence[Skipped], tally: Tally
    ) -> Iterator[dict[str, Any]]:
        for block in self.detector.stream(images, batch_size=self.batch_size, start=places[0], stop=places[1]):
            yield from self._counted(map(row_of, block), tally)
        yield from self._counted(map(row_of, beside), tally)

    @staticmethod
    def _counted(rows: Iterator[dict[str, Any]], tally: Tally) -> Iterator[dict[str, Any]]:
        for row in rows:
            tally.add(row)
            yield row
