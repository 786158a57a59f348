"""Whether two runs of a model say the same: what an export is proven by, and a loaded file again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5
"""Of a map relative to its largest value, and of a score relative to the largest of its own size, the spread of the
calibration scores, and its map's largest value: scores of log-likelihoods cross zero, where nothing is relative."""


def disagreement(
    found: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    calibration: NDArray[np.float32],
    tolerance: float = TOLERANCE,
    map_tolerance: float | None = None,
) -> tuple[float, str | None]:
    """The largest relative difference over images, and in words what is not equal (``None``: all is).

    p-values may differ by the calibration scores that tie with an image's own within the tolerance, and by no more;
    verdicts may not.

    Args:
        found: outputs by name.
        expected: those that they are held against.
        calibration: scores of normal images; empty before calibration.
        tolerance: relative.
        map_tolerance: of maps, where it is another one.
    """
    if set(found) != set(expected):
        return np.inf, f"outputs {sorted(found)} where {sorted(expected)} are expected"
    for name, values in expected.items():  # others would be broadcast
        if found[name].shape != values.shape:
            return np.inf, f"{name} has shape {found[name].shape} where {values.shape} is expected"
    spread = float(np.std(calibration)) if len(calibration) > 1 else 0.0
    score, want = found["score"].astype(np.float64), expected["score"].astype(np.float64)
    largest = np.maximum(np.abs(want), spread)
    if "map" in expected:  # a score is a value of its map, whose scale it has
        largest = np.maximum(largest, _scale(expected["map"]))
    relative = np.abs(score - want) / np.maximum(largest, np.finfo(np.float32).tiny)
    worst = float(relative.max())
    if not worst <= tolerance:
        i = int(np.argmax(np.nan_to_num(relative, nan=np.inf)))
        return worst, f"the score of image {i} is {score[i]:.8g} where {want[i]:.8g} is expected ({worst:.1e} off)"
    if "p_value" in expected:
        ties = (np.abs(calibration[None] - want[:, None]) <= 2 * tolerance * largest[:, None]).sum(axis=1)
        off = np.abs(found["p_value"] - expected["p_value"]) * (len(calibration) + 1)
        if not (off <= ties + 0.5).all():
            i = int(np.argmax(np.nan_to_num(off - ties, nan=np.inf)))
            return worst, f"image {i}: p = {found['p_value'][i]:.6g} where {expected['p_value'][i]:.6g} is expected"
    if "is_anomaly" in expected and not np.array_equal(found["is_anomaly"], expected["is_anomaly"]):
        return worst, "a verdict differs"
    if "map" in expected:
        off_map = map_difference(found["map"], expected["map"])
        worst = max(worst, off_map)
        if not off_map <= (tolerance if map_tolerance is None else map_tolerance):
            return worst, f"a heat map is {off_map:.1e} of its largest value off"
    return worst, None


def map_difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference of maps ``[B, H, W]``, of each one's largest value; infinite where NaNs differ."""
    finite = np.isfinite(expected)
    if not np.array_equal(np.isfinite(found), finite):
        return float("inf")
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    off = np.abs(np.where(finite, found, 0) - np.where(finite, expected, 0)).reshape(len(expected), -1).max(axis=1)
    return float((off / np.maximum(_scale(expected), np.finfo(np.float32).tiny)).max())


def _scale(maps: NDArray[Any]) -> NDArray[Any]:
    """The largest size of a finite value of each map: beside an infinite one every difference would be nothing."""
    size: NDArray[Any] = np.abs(np.where(np.isfinite(maps), maps, 0)).reshape(len(maps), -1).max(axis=1)
    return size
