"""Tables from disk, as `write_table` writes them."""

import csv
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from dracones.report.tables import FORMULA, SUFFIXES


def read_table(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a `.csv`, `.jsonl` or `.parquet`, one by one; an empty field of a CSV is None, others are text.

    A folder of Parquet files is one table, in the order of their names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a row that is none, with its number.
        ImportError: Parquet without pyarrow installed; says how to install it.

    Example:
        >>> import tempfile
        >>> from dracones.report import write_table
        >>> written = write_table(f"{tempfile.mkdtemp()}/s.csv", [{"path": "=a.png", "score": 0.5, "reason": None}])
        >>> list(read_table(written))
        [{'path': '=a.png', 'score': '0.5', 'reason': None}]
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: tables are {', '.join(SUFFIXES)}")
    if kind == ".parquet" and path.is_dir():
        return chain.from_iterable(map(_parquet_rows, sorted(path.glob("part-*.parquet"))))
    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}")
    return {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[kind](path)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        columns = next(reader, [])
        twice = {column for column in columns if columns.count(column) > 1}
        if twice:
            raise ValueError(f"{path} has several columns named {', '.join(map(repr, sorted(twice)))}")
        for number, fields in enumerate(reader, 1):
            if not fields:
                continue
            if len(fields) != len(columns):
                raise ValueError(
                    f"{path}, row {number}: {len(fields)} fields for {len(columns)} columns; was it cut off?"
                )
            yield {column: _unescaped(field) for column, field in zip(columns, fields, strict=True)}


def _unescaped(field: str) -> str | None:
    if field.startswith("'") and field[1:].startswith(FORMULA):
        return field[1:]
    return field or None


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is not JSON ({error}); was it cut off?") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected an object of columns, got {line.strip()[:60]}")
            yield row


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("reading .parquet needs pyarrow: pip install 'dracones[parquet]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not Parquet, or damaged: {error}") from error
