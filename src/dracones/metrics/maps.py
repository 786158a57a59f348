"""Metrics of heat maps against masks, each one call; `PixelRanking` gives several for one sort, fed map by map."""

from typing import Any

from dracones.metrics.pixels import PixelRanking
from dracones.metrics.regions import Connectivity


def pixel_auroc(maps: Any, masks: Any) -> float:
    """Area under the ROC curve over all pixels of all maps.

    `maps`: `[B, H, W]`, or a sequence of `[H, W]` of any sizes; larger = more anomalous. `masks`: the same shapes,
    nonzero = anomalous. Errors: see `PixelRanking.add`.

    Example:
        >>> pixel_auroc([[[0.1, 0.9], [0.2, 0.3]]], [[[0, 1], [0, 0]]])
        1.0
    """
    return _ranking(maps, masks).auroc()


def aupro(maps: Any, masks: Any, max_fpr: float = 0.3, *, connectivity: Connectivity = 8) -> float:
    """Area under the per-region-overlap curve up to a false positive rate, in [0, 1]; see `PixelRanking.aupro`.

    Example:
        >>> aupro([[[0.1, 0.9], [0.2, 0.3]]], [[[0, 1], [0, 0]]])
        1.0
    """
    return _ranking(maps, masks, connectivity).aupro(max_fpr)


def _ranking(maps: Any, masks: Any, connectivity: Connectivity = 8) -> PixelRanking:
    ranking = PixelRanking(connectivity)
    ranking.add(maps, masks)
    return ranking
