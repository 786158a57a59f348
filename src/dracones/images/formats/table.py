"""A table of images: a line each, with its path and maybe its label, its mask and the split that it belongs to.

    path,label,mask,split
    good/000.png,good,,train
    bad/007.png,scratch,masks/007.png,test

CSV (commas, semicolons or tabs), or Parquet with the same columns.
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dracones.images.folder import FilesSource, natural_key
from dracones.images.limits import Limits, Skipped
from dracones.images.masks import MaskedFiles
from dracones.images.names import shown
from dracones.images.sources import ImageSource

TABLES = (".csv", ".tsv")
"""Endings of text tables; Parquet is one where no column holds encoded images."""

_COLUMNS = {
    "path": ("path", "image", "file", "filename", "file_name", "image_path"),
    "label": ("label", "kind", "class", "defect"),
    "mask": ("mask", "mask_path"),
    "split": ("split", "set", "subset"),
}
_GOOD = frozenset(("good", "ok", "normal", "0", "false"))
_ODD = frozenset(("1", "true"))


class TableRow(NamedTuple):
    """One image: its path, what the table says of it, and the columns beside."""

    path: str
    label: str | None
    mask: str | None
    split: str | None
    others: dict[str, str | None]


class Listed(NamedTuple):
    """The rows of a table, and the file that messages name."""

    table: Path
    rows: Sequence[TableRow]


def is_table(path: Path) -> bool:
    """Whether a file is a table of paths."""
    if path.suffix.lower() in TABLES:
        return path.is_file()
    return path.suffix.lower() == ".parquet" and path.is_file() and _parquet_of_paths(path)


def table_parts(path: Path) -> tuple[str, ...]:
    """Its splits, and the labels in each (`test`, `test/scratch`); its labels where it has no splits."""
    return parts_of_rows(read_table(path))


def table_source(path: Path, part: str | None, limits: Limits) -> tuple[ImageSource, list[Skipped]]:
    """The images of one part, or all of a table without splits, and the rows that were passed over.

    Raises:
        ValueError: no column of paths, a path twice, no image or no mask that is there, a part that is not there.
    """
    name = path.name if part is None else f"{path.name}:{part}"
    return listed_files(read_table(path), part, path.parent, name, limits)


def read_table(path: Path) -> Listed:
    """All rows of a file, with paths that are relative to its folder made whole."""
    rows = read_table_rows(path)
    root = path.parent
    whole = [
        row._replace(path=str(root / row.path), mask=None if row.mask is None else str(root / row.mask)) for row in rows
    ]
    first: dict[str, int] = {}
    for number, row in enumerate(whole, 1):
        if first.setdefault(row.path, number) != number:
            raise ValueError(f"{path}, row {number}: {rows[number - 1].path} is row {first[row.path]} already")
    return Listed(path, whole)


def read_table_rows(path: Path) -> list[TableRow]:
    """Rows as they are written.

    Raises:
        ValueError: no table, no rows, or no column of paths.
    """
    header, lines = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _text_rows(path)
    plain = {name.strip().lower(): name for name in header}
    column = {
        meaning: plain[found]
        for meaning, names in _COLUMNS.items()
        if (found := next((n for n in names if n in plain), ""))
    }
    if "path" not in column:
        raise ValueError(
            f"{path} has no column of paths; expected one called path (or {', '.join(_COLUMNS['path'][1:])}), it has "
            f"{', '.join(map(repr, header)) or 'none'}"
        )
    rows = []
    for number, line in enumerate(lines, 1):
        told = {meaning: line[name] for meaning, name in column.items()}
        others = {name.strip().lower(): value for name, value in line.items() if name not in column.values()}
        where = told["path"]
        if where is None:
            raise ValueError(f"{path}, row {number}: the column {column['path']!r} is empty; every row is an image")
        rows.append(TableRow(where, told.get("label"), told.get("mask"), told.get("split"), others))
    if not rows:
        raise ValueError(f"{path} has no rows below its header")
    return rows


def parts_of_rows(listed: Listed) -> tuple[str, ...]:
    """Splits in the order in which they come, each with its labels where there are several: the good first."""
    splits: list[str | None] = list(dict.fromkeys(row.split for row in listed.rows if row.split is not None))
    found: list[str] = []
    for split in splits or [None]:
        labels = {row.label for row in listed.rows if row.split == split and row.label is not None}
        prefix = "" if split is None else f"{split}/"
        found += [] if split is None else [split]
        ordered = sorted(labels, key=lambda label: (not is_good(label), natural_key(label)))
        found += [f"{prefix}{label}" for label in ordered]
    return tuple(found)


def listed_files(
    listed: Listed, part: str | None, root: Path, name: str, limits: Limits
) -> tuple[FilesSource, list[Skipped]]:
    """The images of one part as files, with labels and masks; and the rows whose image or mask is not there.

    Raises:
        ValueError: no such part, not one image or not one mask that is there, some rows labelled and others not.
    """
    rows, skipped = _present(listed, _rows_of(listed, part), root)
    paths = [Path(row.path) for row in rows]
    masks = [None if row.mask is None else Path(row.mask) for row in rows]
    below = all(path.is_relative_to(root) for path in paths)
    base = root if below else Path(_common(paths))
    has_masks = any(row.mask is not None for row in listed.rows)
    labels, classes = _labels(listed, rows)
    if not has_masks:
        source = FilesSource(paths, base, name, limits)
    else:
        source = MaskedFiles(paths, base, name, limits, masks, labels)
    source.labels, source.classes = labels, classes
    if labels is not None:
        source.groups = [str(row.label) for row in rows]
    return source, skipped


def _present(listed: Listed, rows: list[TableRow], root: Path) -> tuple[list[TableRow], list[Skipped]]:
    """The rows whose files are there, and why each other one is passed over.

    Where none of them is there, the table's paths are meant from another folder: that is an error.
    """
    skipped: list[Skipped] = []
    for what, column in (("images", "path"), ("masks", "mask")):
        named = [getattr(row, column) for row in rows]
        is_there = [file is None or Path(file).is_file() for file in named]
        absent = [file for file, there in zip(named, is_there, strict=True) if not there]
        if absent and len(absent) == sum(file is not None for file in named):
            raise ValueError(
                f"{listed.table}: none of the {len(absent)} {what} is there, e.g. {absent[0]}; paths are relative to "
                "the table's folder"
            )
        for row, file, there in zip(rows, named, is_there, strict=True):
            if not there:
                why = "is not there, though the table names it" if column == "path" else f"its mask {file} is not there"
                skipped.append(Skipped(_name_below(Path(row.path), root), why))
        rows = [row for row, there in zip(rows, is_there, strict=True) if there]
    return rows, skipped


def _name_below(path: Path, root: Path) -> str:
    return shown(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))


def is_good(label: str) -> bool:
    """Whether a label is one of the words for normal images."""
    return label.strip().lower() in _GOOD


def _rows_of(listed: Listed, part: str | None) -> list[TableRow]:
    known = parts_of_rows(listed)
    has_splits = any(row.split is not None for row in listed.rows)
    if part is None and has_splits:
        splits = dict.fromkeys(row.split for row in listed.rows if row.split is not None)
        if len(splits) > 1:
            raise ValueError(f"{listed.table} has several splits; name one: {_named(listed.table, known)}")
        return list(listed.rows)
    if part is None:
        return list(listed.rows)
    if part not in known:
        there = _named(listed.table, known) if known else "it has neither splits nor labels"
        raise ValueError(f"{listed.table} has no part '{part}'; name one: {there}")
    split, label = (part, None) if not has_splits or "/" not in part else part.split("/", 1)
    if not has_splits:
        split, label = "", part
    return [
        row for row in listed.rows if (not has_splits or row.split == split) and (label is None or row.label == label)
    ]


def _named(table: Path, parts: Sequence[str], shown: int = 12) -> str:
    more = f", ... ({len(parts)} in all)" if len(parts) > shown else ""
    return ", ".join(f"{table}:{part}" for part in parts[:shown]) + more


def _labels(listed: Listed, rows: Sequence[TableRow]) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """0 and 1 where the table tells good from defective images; classes otherwise; None where nothing is labelled."""
    words = [row.label for row in rows]
    if all(word is None for word in words):
        return None, None
    if None in words:
        row = rows[words.index(None)]
        counts = Counter(word is None for word in words)
        raise ValueError(
            f"{listed.table}: {counts[True]} of {len(rows)} rows have no label, e.g. {row.path}; label all, or none"
        )
    known = {row.label for row in listed.rows if row.label is not None}
    is_inspection = any(row.mask is not None for row in listed.rows) or (
        any(map(is_good, known)) and not all(word.isdigit() for word in known)
    )
    if is_inspection or known <= _GOOD | _ODD:
        return np.array([int(not is_good(str(word))) for word in words], dtype=np.int64), ("normal", "anomalous")
    classes = tuple(sorted(known, key=natural_key))
    return np.array([classes.index(str(word)) for word in words], dtype=np.int64), classes


def _text_rows(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it so") from None
    lines = text.splitlines()
    if not lines:
        raise ValueError(f"{path} is empty; its first line names the columns")
    separator = max(",;\t", key=lines[0].count)
    reader = csv.DictReader(lines, delimiter=separator)
    header = [name for name in reader.fieldnames or [] if name]
    found: list[dict[str, str | None]] = []
    for number, row in enumerate(reader, 1):
        if None in row or None in row.values():
            raise ValueError(f"{path}, row {number}: the header has {len(header)} fields and the row another number")
        found.append({name: value.strip() or None for name, value in row.items() if name})
    return header, found


def _parquet_rows(path: Path) -> tuple[list[str], list[dict[str, str | None]]]:
    table = _parquet(path).read()
    found = [{name: _text(value) for name, value in row.items()} for row in table.to_pylist()]
    return list(table.column_names), found


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return (str(int(value)) if isinstance(value, bool | float) and int(value) == value else str(value)).strip() or None


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install 'dracones[parquet]'") from error
    return pyarrow.parquet.ParquetFile(path)


def _parquet_of_paths(path: Path) -> bool:
    """Whether columns of text name paths and none holds encoded images."""
    try:
        schema = _parquet(path).schema_arrow
    except (ImportError, OSError, ValueError):  # whoever reads it as images says what is wrong
        return False
    import pyarrow

    kinds = {name.lower(): schema.field(name).type for name in schema.names}
    types = pyarrow.types
    encoded = (types.is_binary, types.is_large_binary, types.is_struct)
    if any(test(kind) for kind in kinds.values() for test in encoded):
        return False
    text = (types.is_string, types.is_large_string)
    return any(name in kinds and any(test(kinds[name]) for test in text) for name in _COLUMNS["path"])


def _common(paths: Sequence[Path]) -> str:
    return os.path.commonpath([os.path.abspath(path.parent) for path in paths])  # noqa: PTH100 (links stay as they are)
