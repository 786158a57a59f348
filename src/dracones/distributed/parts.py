"""A table as a folder of Parquet files, each written when its rows are there."""

import shutil
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from dracones.distributed.rows import COLUMNS
from dracones.files.journal import Journal

ROWS = 100_000
"""Rows of a file."""
ROWS_SO_FAR = "_rows"
"""The journal beside the files: readers of Parquet folders pass over names that begin so."""


class PartedJournal(Journal):
    """A journal that also fills its folder with files ``part-000000.parquet`` of `ROWS` rows each.

    The journal alone says what is there: a file that ends behind its last row is written again.
    """

    _parts = 0
    _next = 0

    @classmethod
    @override
    def begin(cls, path: Path, facts: Mapping[str, Any]) -> Self:
        path.parent.mkdir(exist_ok=True)
        journal = super().begin(path, facts)
        journal._drop_parts(0)
        return journal

    @classmethod
    @override
    def resume(cls, path: Path, facts: Mapping[str, Any]) -> Self:
        journal = super().resume(path, facts)
        journal._drop_parts(journal.count // ROWS)
        return journal

    @override
    def keep(self, count: int) -> None:
        super().keep(count)
        self._drop_parts(self.count // ROWS)

    @override
    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        super().append(rows)
        while self.count >= (self._parts + 1) * ROWS:
            self._write_part()

    @override
    def remove(self) -> None:
        super().remove()
        shutil.rmtree(self.path.parent)

    def place(self, folder: Path) -> None:
        """Write what is left and have the folder take its place; one that was there before is gone then.

        Raises:
            OSError: the disk refuses; all rows are still here.
        """
        if self.count > self._parts * ROWS or not self._parts:
            self._write_part()
        self.close()
        before = folder.with_name(folder.name + ".before")
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            folder.replace(before)
        self.path.parent.replace(folder)
        (folder / ROWS_SO_FAR).unlink()
        shutil.rmtree(before, ignore_errors=True)

    def _write_part(self) -> None:
        from dracones.report import write_rows

        with self.path.open("rb") as file:
            file.seek(self._next)
            lines = islice(iter(file.readline, b""), min(ROWS, self.count - self._parts * ROWS))
            write_rows(self._part(self._parts), COLUMNS, map(self.row_of_line, lines))
            self._next = file.tell()
        self._parts += 1

    def _drop_parts(self, count: int) -> None:
        """Keep so many files, and know where the rows of the next begin."""
        self._parts = min([count, *(i for i in range(count) if not self._part(i).exists())])
        for path in self.path.parent.glob("part-*.parquet"):
            if path not in {self._part(i) for i in range(self._parts)}:
                path.unlink()
        with self.path.open("rb") as file:
            for _ in range(1 + self._parts * ROWS):
                file.readline()
            self._next = file.tell()

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"part-{number:06}.parquet")


def refuse_other_folder(folder: Path) -> None:
    """Refuse to replace what is no table.

    Raises:
        OSError: a file is in its place, or a folder that holds other things.
    """
    if folder.is_file():
        raise NotADirectoryError(f"cannot write {folder}/: it is a file; name a folder, or leave out the slash")
    others = [path.name for path in folder.glob("*") if not path.match("part-*.parquet") and path.name != ROWS_SO_FAR]
    if others:
        raise FileExistsError(
            f"cannot write {folder}/: it holds {others[0]}, which is no part of a table; name another folder"
        )
