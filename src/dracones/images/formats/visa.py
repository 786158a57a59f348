"""VisA's layout: images by folder, the split by a table for all categories.

    VisA/split_csv/1cls.csv                       object, split, label, image, mask
    VisA/candle/Data/Images/Normal/0000.JPG       VisA/candle/Data/Images/Anomaly/000.JPG
    VisA/candle/Data/Masks/Anomaly/000.png        VisA/candle/image_anno.csv (kinds of defect)

Reference: Y. Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation",
2022.
"""

from pathlib import Path

from dracones.images.formats.table import Listed, TableRow, listed_files, parts_of_rows, read_table_rows
from dracones.images.limits import Limits, Skipped
from dracones.images.sources import ImageSource

_SPLIT = Path("split_csv") / "1cls.csv"


def is_visa(folder: Path) -> bool:
    """Whether the folder is a category of VisA."""
    return (folder / "Data" / "Images" / "Normal").is_dir()


def visa_parts(folder: Path) -> tuple[str, ...]:
    """`train`, `test` and the kinds of it."""
    return parts_of_rows(_rows(folder))


def visa_source(folder: Path, part: str, limits: Limits) -> tuple[ImageSource, list[Skipped]]:
    """The images of one part by the one-class split, with labels, masks and kinds of defect.

    Raises:
        ValueError: the split is missing or names no image of this category, or no such part.
    """
    return listed_files(_rows(folder), part, folder, f"{folder.name}:{part}", limits)


def _rows(folder: Path) -> Listed:
    root = folder.resolve().parent
    path = root / _SPLIT
    if not path.is_file():
        raise ValueError(
            f"{folder} is laid out like VisA, and its split {path} is missing: put it there, or open "
            f"{folder}/Data/Images/Normal"
        )
    found = read_table_rows(path)
    name = folder.resolve().name
    kinds = _kinds(folder)
    rows = []
    for row in found:
        if row.others.get("object") != name:
            continue
        image = root / row.path
        kind = "good" if row.label == "normal" else kinds.get(Path(row.path).name, "anomaly")
        rows.append(TableRow(str(image), kind, None if row.mask is None else str(root / row.mask), row.split, {}))
    if not rows:
        objects = sorted({str(row.others.get("object")) for row in found})
        raise ValueError(f"{path} has no row of object '{name}'; its objects are {', '.join(objects) or 'none'}")
    return Listed(path, rows)


def _kinds(folder: Path) -> dict[str, str]:
    """File name of an anomalous image → its kinds of defect, joined by a plus."""
    path = folder / "image_anno.csv"
    if not path.is_file():
        return {}
    return {
        Path(row.path).name: "+".join(sorted(each.strip() for each in row.label.split(",")))
        for row in read_table_rows(path)
        if row.label not in (None, "normal")
    }
