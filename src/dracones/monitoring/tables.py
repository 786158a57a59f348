"""A monitor fed from tables of scores: every row that has a score, once, in order; all else is refused by name."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dracones.images.keys import keys_of
from dracones.monitoring.monitor import Monitor
from dracones.report import read_table

WHOLE = "all images"


@dataclass(frozen=True)
class Row:
    """One image of a table: where it stands, its name, its score (``None``: it could not be read), its source."""

    place: str
    path: str
    score: float | None
    p_value: float | None
    source: str


@dataclass
class Watched:
    """What a monitor saw in tables.

    Attributes:
        curves: log capital after each image, of all images and of each source.
        paths: name of each image, likewise.
        unjudged: name and reason of each row without a score.
    """

    curves: dict[str, list[float]] = field(default_factory=lambda: {WHOLE: []})
    paths: dict[str, list[str]] = field(default_factory=lambda: {WHOLE: []})
    unjudged: list[tuple[str, str]] = field(default_factory=list)


def rows_of(tables: Iterable[str | Path], source: str | None = None) -> Iterator[Row]:
    """The rows of tables that `dracones score` wrote, in order.

    Args:
        tables: `.csv`, `.jsonl` or `.parquet`.
        source: what tells an image's source: a column of the table, ``"folder"``, or a regular expression of its path.

    Raises:
        ValueError: a table without the columns or of an image that was there before, a score that is no finite number,
            a row of which the source is unknown.
    """
    seen: dict[str, str] = {}
    for table in tables:
        empty = True
        for number, row in enumerate(read_table(table), 1):
            place, empty = f"{table}, row {number}", False
            _check_columns(table, row)
            path = str(row["path"])
            if path in seen:
                raise ValueError(
                    f"{place}: {path!r} was there before ({seen[path]}); each image counts once: take one of them out"
                )
            seen[path] = place
            score = _number(row["score"], "score", place)
            if score is None and not row.get("reason"):
                raise ValueError(f"{place}: {path!r} has no score, and no reason why; expected a finite number")
            key = "" if source is None or score is None else _source_of(row, source, place)
            yield Row(place, path, score, _number(row.get("p_value"), "p_value", place), key)
        if empty:
            raise ValueError(f"{table} has no rows")


def take(monitor: Monitor, tables: Iterable[str | Path]) -> None:
    """Note that a monitor is fed these tables, by their content.

    Raises:
        ValueError: one that it was fed before: its images would count twice.
    """
    for table in tables:
        digest = _digest(Path(table))
        if digest in monitor.tables:
            raise ValueError(f"{table} was watched before; each image counts once: give the tables that are new")
        monitor.tables.append(digest)


def watch(monitor: Monitor, rows: Iterable[Row], check: Callable[[Row], None] | None = None) -> Watched:
    """Feed a monitor; ``check`` may refuse a row before it counts."""
    found = Watched()
    for row in rows:
        if row.score is None:
            found.unjudged.append((row.path, row.place))
            continue
        if check is not None:
            check(row)
        monitor.update(row.score, row.source)
        for name in (None, row.source) if row.source else (None,):
            label = WHOLE if name is None else name
            found.curves.setdefault(label, []).append(monitor.stream(name).log_martingale)
            found.paths.setdefault(label, []).append(row.path)
    return found


def _check_columns(table: str | Path, row: Mapping[str, Any]) -> None:
    lacking = [column for column in ("path", "score") if column not in row]
    if lacking:
        raise ValueError(
            f"{table} has no column {' and no column '.join(map(repr, lacking))}; its columns are "
            f"{', '.join(map(repr, row))}; expected a table that `dracones score -o` wrote"
        )


def _number(value: Any, column: str, place: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{place}: {column} is {value!r}; expected a finite number")
    return number


def _source_of(row: Mapping[str, Any], source: str, place: str) -> str:
    if source in row:
        found = row[source]
    elif source.isidentifier() and source != "folder":
        raise ValueError(
            f"{place}: there is no column {source!r}; columns are {', '.join(map(repr, row))}; or give 'folder', or a "
            "regular expression of paths"
        )
    else:
        found = keys_of([str(row["path"])], source, "source")[0]
    if found in (None, ""):
        raise ValueError(f"{place}: the source of {row['path']!r} is not known by {source!r}")
    return str(found)


def _digest(table: Path) -> str:
    """A hash of a table's bytes, of all files where it is a folder of them."""
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(table.glob("part-*.parquet")) if table.is_dir() else [table]:
        state.update(path.read_bytes())
    return state.hexdigest()
