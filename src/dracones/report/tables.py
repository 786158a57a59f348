"""Tables on disk: CSV for people, JSON lines and Parquet for programs, each written whole or not at all."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from dracones.files.atomic import replacing
from dracones.report.plain import plain

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Spreadsheets run a cell that begins so; an apostrophe in front makes it text."""

_ROWS_AT_ONCE = 2**14

SUFFIXES = (".csv", ".jsonl", ".parquet")


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows to `.csv`, `.jsonl` or `.parquet`, by the path's suffix.

    Columns are those of all rows, in the order they first appear. Numbers keep all their digits. A missing or
    non-finite value is an empty field (CSV) or `null` (JSON lines, Parquet). In CSV a text that a spreadsheet would run
    (it begins with = + - @) gets an apostrophe in front.

    Raises:
        ValueError: another suffix.
        ImportError: Parquet without pyarrow installed; says how to install it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> print(write_table(f"{folder}/s.csv", [{"path": "a.png", "score": 0.1 + 0.2}]).read_text(), end="")
        path,score
        a.png,0.30000000000000004
    """
    path = Path(path)
    kind = table_kind(path)
    records = [{str(key): plain(value) for key, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(key for record in records for key in record))
    with replacing(path) as temporary:
        if kind == ".csv":
            _write_csv(temporary, columns, records)
        elif kind == ".jsonl":
            _write_lines(temporary, records)
        else:
            _write_parquet(temporary, columns, records)
    return path


def write_rows(path: str | Path, columns: Mapping[str, type], rows: Iterable[Mapping[str, Any]]) -> Path:
    """As `write_table`, for any number of rows: one after the other, in the memory of a few thousand.

    Args:
        path: `.csv`, `.jsonl` or `.parquet`.
        columns: each name with the type of its values (`str`, `float`, `bool`, `int`, or `list` for lines of points);
            any value may be missing.
        rows: read once.

    Raises:
        ValueError: another suffix.
        ImportError: Parquet without pyarrow installed; says how to install it.
        OSError: the disk refuses; what was at the path is untouched.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/s.jsonl"
        >>> print(write_rows(path, {"path": str, "score": float}, [{"path": "a.png"}]).read_text(), end="")
        {"path": "a.png", "score": null}
    """
    path = Path(path)
    kind = table_kind(path)
    records = ({column: plain(row.get(column)) for column in columns} for row in rows)
    with replacing(path) as temporary:
        if kind == ".csv":
            _write_csv(temporary, list(columns), records)
        elif kind == ".jsonl":
            _write_lines(temporary, records)
        else:
            _stream_parquet(temporary, columns, records)
    return path


def table_kind(path: str | Path) -> str:
    """The kind of table that a path asks for, its suffix; to be asked before the work whose result it will hold.

    Raises:
        ValueError: another suffix.
        ImportError: Parquet without pyarrow installed; says how to install it.
    """
    kind = Path(path).suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"tables are written as {', '.join(SUFFIXES)}; got {Path(path).name!r}")
    if kind == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "writing .parquet needs pyarrow: pip install 'dracones[parquet]', or name a .csv or .jsonl file"
            ) from error
    return kind


def _write_csv(path: Path, columns: list[str], records: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for record in records:
            writer.writerow([_field(record.get(column)) for column in columns])


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        text = value.replace("\r", "\\x0d")  # the csv module leaves it bare, and readers take it for a new line
        return "'" + text if value.startswith(FORMULA) else text
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")


def _write_parquet(path: Path, columns: list[str], records: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({column: [record.get(column) for record in records] for column in columns})
    pyarrow.parquet.write_table(table, path)


def _stream_parquet(path: Path, columns: Mapping[str, type], records: Iterable[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    lines = pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float64())))
    types = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_(), int: pyarrow.int64(), list: lines}
    schema = pyarrow.schema([(name, types[of]) for name, of in columns.items()])
    source = iter(records)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(source, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
