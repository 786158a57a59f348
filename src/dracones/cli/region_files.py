"""Where images are anomalous, on disk: a mask an image, and a table of regions."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dracones.calibration.heat_range import HeatRange

_COLUMNS: dict[str, type] = {
    "path": str,
    "region": int,
    "top": int,
    "left": int,
    "bottom": int,
    "right": int,
    "area": int,
    "peak": float,
    "peak_row": int,
    "peak_column": int,
    "p_value": float,
    "outlines": list,
}


class RegionFiles:
    """Writes each image's mask and regions as its map comes, and keeps none; a context that holds the rows meanwhile.

    Args:
        model: for messages.
        normal: whose threshold of pixels says what is a region.
        masks: folder for masks, or none.
        table: file for regions (.csv, .jsonl, .parquet), or none.
        names: of all images that may come.

    Raises:
        ValueError: nothing is promised of pixels, or two images whose masks would have one name.
    """

    def __init__(
        self, model: Path, normal: "HeatRange | None", masks: Path | None, table: Path | None, names: Sequence[str]
    ) -> None:
        if normal is None or normal.rate is None:
            knows = "no heat map of a normal image" if normal is None else f"those of {len(normal.peaks)} normal images"
            raise ValueError(
                f"{model} promises nothing of pixels: it knows {knows}; `dracones calibrate {model} NORMAL_IMAGES` "
                "sets a threshold of pixels (--pixel-rate for a rate of their own)"
            )
        if masks is not None:
            _refuse_one_name_for_two(names)
        self.normal, self.masks, self.table = normal, masks, table
        self.images, self.marked = 0, 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from dracones.distributed.table import rows_kept

        self._rows = self._open.enter_context(rows_kept(None, {}, resume=False))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def keep(self, name: str, score_map: "NDArray[np.float32]") -> None:
        """Take one image's map."""
        from dracones.calibration import regions_of
        from dracones.report import write_mask

        found = regions_of(score_map, self.normal)
        self.images += 1
        self.marked += bool(found)
        self._rows.append({"path": name, "region": i, **each.to_row()} for i, each in enumerate(found, start=1))
        if self.masks is not None:
            write_mask(self.masks, name, self.normal.hot(score_map))

    def finish(self) -> None:
        """Write the table."""
        from dracones.report import write_rows

        if self.table is not None:
            write_rows(self.table, _COLUMNS, self._rows.rows())

    def describe(self) -> str:
        """What was found and written, in words."""
        where = [f"masks in {self.masks}"] * (self.masks is not None)
        where += [f"regions in {self.table}"] * (self.table is not None)
        return (
            f"{self._rows.count} regions in {self.marked} of {self.images} images are {self.normal.meaning()}: "
            f"{' and '.join(where)}"
        )


def _refuse_one_name_for_two(names: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(PurePosixPath(name).with_suffix("").as_posix(), name)
        if other != name:
            raise ValueError(f"the masks of {other} and {name} would have one name; score them apart")
