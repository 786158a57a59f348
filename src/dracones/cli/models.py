"""What a verb is given as MODEL: a detector's file, or an exported one, which needs no torch."""

import os
from pathlib import Path
from typing import Any, Literal

from dracones.cli.options import runtime, use_threads

EXPORTED = (".onnx", ".xml")


def is_exported(model: Path) -> bool:
    """Whether a file is one that `dracones export` wrote, told by its ending."""
    return model.suffix.lower() in EXPORTED


def load_model(model: Path, *, device: str | None = "cpu", classifier: str | None = None) -> Any:
    """The detector in a file; both kinds answer the same.

    Raises:
        ValueError: options that an exported file has no use for.
    """
    if not is_exported(model):
        import dracones

        return dracones.load(model, device=device or "cpu", **runtime(classifier))
    if classifier is not None or device not in (None, "cpu"):
        raise ValueError(
            f"{model} is an exported file: it runs on the processor and holds its classifier; leave out "
            "--device and --classifier"
        )
    from dracones.runtime import load

    return load(model)


def calibration_of(model: Path) -> Any:
    """The calibration in a file of either kind, without its weights: a `Conformal`, or `Groups` of them.

    Raises:
        ValueError: it has none.
    """
    if is_exported(model):
        from dracones.runtime import load

        found: Any = load(model).calibration
    else:
        from dracones.detectors import read_record

        record = read_record(model)
        found = record.calibration if record.groups is None else record.groups
    if not len(found):
        raise ValueError(f"{model} has no calibration; `dracones calibrate {model} NORMAL_IMAGES` makes one")
    return found


def use_threads_for(model: Path, threads: int | None) -> None:
    """Have what runs the model use this many threads in the rest of the process."""
    if not is_exported(model):
        use_threads(threads)
    elif threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def open_data(
    model: Path,
    data: str,
    *,
    strict: bool = False,
    max_pixels: int | None = None,
    pages: str = "first",
    masks: Path | None = None,
) -> Any:
    """The images of DATA for a model; without torch for an exported one."""
    if not is_exported(model):
        return open_normal(data, strict=strict, max_pixels=max_pixels, pages=pages, masks=masks)
    from dracones.runtime.images import open_line_images

    return open_line_images(data, strict=strict, limits=_limits(max_pixels), pages=_pages(pages), masks=masks)


def open_test(model: Path, category: Path) -> tuple[Any, Any]:
    """A category's test images, with masks, and their labels (1 = anomalous); without torch for an exported model."""
    from dracones.images.formats.layouts import images_to_test
    from dracones.images.limits import Limits

    source, skipped = images_to_test(category, Limits())
    if is_exported(model):
        from dracones.runtime import LineImages

        return LineImages(source, skipped=skipped), source.labels
    from dracones.images import ImageCollection

    return ImageCollection(source, skipped=skipped), source.labels


def open_normal(
    data: str, *, strict: bool, max_pixels: int | None = None, pages: str = "first", masks: Path | None = None
) -> Any:
    """The images of DATA, to learn from or to be scored by a detector."""
    from dracones.images import open_images

    return open_images(data, strict=strict, limits=_limits(max_pixels), pages=_pages(pages), masks=masks)


def read_groups(text: str | None) -> Any:
    """What ``--group`` says: folder, a pattern, or the column of a table that has a column of paths.

    Raises:
        ValueError: a table without the columns, or with a path twice.
    """
    table, _, column = (text or "").rpartition(":")
    if not Path(table).is_file():
        return text
    from dracones.report import read_table

    found: dict[str, str] = {}
    for number, row in enumerate(read_table(table), 1):
        lacking = [name for name in ("path", column) if name not in row]
        if lacking:
            raise ValueError(f"{table} has no column {lacking[0]!r}; its columns are {', '.join(map(repr, row))}")
        path = str(row["path"])
        if path in found:
            raise ValueError(f"{table}, row {number}: {path!r} was there before; each image has one group")
        if row[column] is not None:
            found[path] = str(row[column])
    return found


def _limits(max_pixels: int | None) -> Any:
    from dracones.images.limits import Limits

    return None if max_pixels is None else Limits(max_pixels=max_pixels)


def _pages(pages: str) -> Literal["first", "all"]:
    if pages not in ("first", "all"):
        raise ValueError(f"--pages is first or all, got {pages!r}")
    return "all" if pages == "all" else "first"
