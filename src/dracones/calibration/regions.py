"""Where a heat map is hotter than normal ones are: regions with area, box, peak, p-value and outline."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.calibration.heat_range import HeatRange

Outline = list[list[float]]


@dataclass(frozen=True)
class Region:
    """One connected region (pixels that touch at a corner are of one) that is hotter than the threshold of pixels.

    Coordinates are pixels from the upper left corner of the image; a pixel's centre has whole numbers.

    Attributes:
        area: its pixels.
        box: top, left, bottom, right; the last two lie one beyond the region.
        peak: its hottest pixel's value.
        peak_at: row, column of that pixel.
        p_value: share of normal images expected to have any pixel as hot as the peak.
        outlines: closed lines of `[column, row]`, where the map crosses the threshold: the line that overlays show;
            holes have lines of their own.
    """

    area: int
    box: tuple[int, int, int, int]
    peak: float
    peak_at: tuple[int, int]
    p_value: float
    outlines: tuple[Outline, ...]

    def to_row(self) -> dict[str, Any]:
        """Plain values, flat: a line of a table."""
        top, left, bottom, right = self.box
        return {
            "top": top,
            "left": left,
            "bottom": bottom,
            "right": right,
            "area": self.area,
            "peak": self.peak,
            "peak_row": self.peak_at[0],
            "peak_column": self.peak_at[1],
            "p_value": self.p_value,
            "outlines": [list(line) for line in self.outlines],
        }


def regions_of(heat: NDArray[Any], normal: HeatRange) -> list[Region]:
    """The regions of a map `[H, W]` that are hotter than the threshold of pixels, the hottest first.

    Example:
        >>> normal = HeatRange.of([(0.0, float(peak)) for peak in range(1, 20)]).at(0.05)
        >>> heat = np.zeros((8, 8)); heat[2:4, 3:6] = 30.0
        >>> (region,) = regions_of(heat, normal)
        >>> region.area, region.box, region.p_value
        (6, (2, 3, 4, 6), 0.05)
    """
    from skimage.measure import label, regionprops  # a second, for whom has regions

    values = np.asarray(heat, dtype=np.float64)
    hot = normal.hot(values)
    if not hot.any():
        return []
    numbered = label(hot, connectivity=2)
    found = [_region(each, values, numbered, normal) for each in regionprops(numbered)]
    return sorted(found, key=lambda region: -region.peak)


def _region(found: Any, values: NDArray[np.float64], numbered: NDArray[Any], normal: HeatRange) -> Region:
    top, left, bottom, right = (int(side) for side in found.bbox)
    inside = np.where(found.image, values[top:bottom, left:right], -np.inf)
    row, column = np.unravel_index(int(np.argmax(inside)), inside.shape)
    peak = float(inside[row, column])
    return Region(
        area=int(found.area),
        box=(top, left, bottom, right),
        peak=peak,
        peak_at=(top + int(row), left + int(column)),
        p_value=float(normal.peaks.p_values(np.array([peak]))[0]),
        outlines=_outlines(values, numbered, int(found.label), (top, left, bottom, right), normal.threshold),
    )


def _outlines(
    values: NDArray[np.float64], numbered: NDArray[Any], number: int, box: tuple[int, int, int, int], threshold: float
) -> tuple[Outline, ...]:
    from skimage.measure import find_contours

    top, left, bottom, right = box
    height, width = values.shape
    # One pixel more on each side, where there is one: the line runs between the region and what is around it.
    above, before = max(top - 1, 0), max(left - 1, 0)
    window = slice(above, min(bottom + 1, height)), slice(before, min(right + 1, width))
    cold = np.nan_to_num(values[window], nan=threshold, posinf=np.finfo(np.float64).max)
    own = np.where(numbered[window] == number, cold, np.minimum(cold, threshold))
    # A frame closes lines at the border of the image.
    framed = np.pad(own, 1, constant_values=threshold - 1.0)
    lines = find_contours(framed, threshold, fully_connected="high")
    return tuple([[round(float(x) + before - 1, 2), round(float(y) + above - 1, 2)] for y, x in line] for line in lines)
