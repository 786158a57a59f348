"""Inspection sets as they are published: which layout a folder or table has, its parts, its test images."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dracones.images.folder import natural_key
from dracones.images.formats.kolektor import is_kolektor, kolektor_parts, kolektor_source
from dracones.images.formats.mvtec import is_mvtec, mvtec_parts, mvtec_source
from dracones.images.formats.table import is_table, table_parts, table_source
from dracones.images.formats.visa import is_visa, visa_parts, visa_source
from dracones.images.limits import Limits, Skipped
from dracones.images.sources import ImageSource

_LOOKED_AT = 1000
Found = tuple[ImageSource, list[Skipped]]


class Layout(NamedTuple):
    """How a published set lies on disk."""

    is_one: Callable[[Path], bool]
    parts: Callable[[Path], tuple[str, ...]]
    source: Callable[[Path, str, Limits], Found]


FOLDERS = (
    Layout(is_mvtec, mvtec_parts, mvtec_source),
    Layout(is_visa, visa_parts, visa_source),
    Layout(is_kolektor, kolektor_parts, kolektor_source),
)


def layout_of(folder: Path) -> Layout | None:
    """The layout that a folder has, or None."""
    return next((layout for layout in FOLDERS if layout.is_one(folder)), None)


def categories_in(folder: Path) -> list[str]:
    """Names of the folders directly inside that are laid out so; of a thousand entries at most."""
    inside = [entry for entry in islice(folder.iterdir(), _LOOKED_AT) if entry.is_dir()]
    return sorted((entry.name for entry in inside if layout_of(entry) is not None), key=natural_key)


def images_to_test(category: Path, limits: Limits) -> Found:
    """All test images of a category, with labels and, where there are any, masks.

    Args:
        category: A folder in a layout that is known, or a table with labels: its split `test`, or all of one without
            splits.
        limits: What one image may cost.

    Raises:
        ValueError: the folder is in no known layout (where it holds categories, they are named), or the table has no
            labels or no such split.
    """
    if is_table(category):
        return _of_table(category, limits)
    layout = layout_of(category)
    if layout is None:
        raise ValueError(_not_laid_out(category))
    return layout.source(category, "test", limits)


def _of_table(table: Path, limits: Limits) -> Found:
    parts = table_parts(table)
    splits = [part for part in parts if "/" in part]
    source, skipped = table_source(table, "test" if splits or "test" in parts else None, limits)
    if source.labels is None or source.classes != ("normal", "anomalous"):
        raise ValueError(
            f"{table} does not say which images are good: expected a column label with good (or ok, normal, 0) for "
            "those, and any other word for a kind of defect"
        )
    return source, skipped


def _not_laid_out(folder: Path) -> str:
    if not folder.is_dir():
        return f"no such folder or table: {folder}"
    categories = categories_in(folder)
    if categories:
        return f"{folder} holds categories; name one: {', '.join(categories)}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return (
        f"{folder} is in no layout that is known: expected train/good and test (MVTec AD, LOCO, BTAD), Data/Images "
        f"(VisA), images beside their masks (Kolektor), or a table; it holds {', '.join(names[:8]) or 'no folders'}"
    )
