"""Confidence intervals of pixel metrics by resampling images, since the pixels of one image are not independent.

Each image's counts at common thresholds form one row of a table; a bootstrap replicate weights the rows, so that all
replicates are one matrix product and nothing is sorted again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.metrics.coverage import Shares
from dracones.metrics.inputs import Float
from dracones.metrics.intervals import (
    REPLICATES,
    Estimate,
    average_precision_of,
    check_confidence,
    detection_error_of,
    f1_max_of,
    mirrored,
)
from dracones.metrics.pixel_counts import PixelCounts

Matrix = NDArray[np.float64]

SATURATED_MAX_FPR = 0.05
"""What MVTec LOCO's own evaluation reports first."""

_TABLE = 1 << 23  # entries of a table at most; more images get fewer thresholds
_BATCH = 1 << 23  # resampled weights at a time


class Tables(NamedTuple):
    """A row an image, a column a falling threshold: normal and anomalous pixels at or above it, summed region overlap.

    The last column counts everything: all pixels, all regions. `saturated`: the same of what saturates defects, where
    that is known. Summed over the images of each resample, a row is a replicate.
    """

    normal: Matrix
    anomalous: Matrix
    overlap: Matrix
    saturated: Matrix | None = None


def common_thresholds(counts: PixelCounts, images: int) -> Float:
    """Falling thresholds at quantiles of both classes, denser towards small false positive rates."""
    size = int(np.clip(_TABLE // images, 64, 1024))
    even = np.linspace(0, 1, size // 2)
    rates = np.concatenate([np.geomspace(1 / len(counts.normal), 1, size // 4), even[::2]])
    of_normal = counts.normal[((1 - rates) * (len(counts.normal) - 1)).astype(np.int64)]
    of_anomalous = np.searchsorted(counts.anomalous_up_to, even * counts.anomalous_up_to[-1])
    levels = counts.levels[np.minimum(of_anomalous, len(counts.levels) - 1)]
    return np.unique(np.concatenate([of_normal, levels]))[::-1]


def image_row(scores: Float, thresholds: Float, weights: NDArray[np.float64] | None = None) -> Matrix:
    """How many scores (or how much of their weight) are at or above each falling threshold; the whole last."""
    if weights is None:
        ranked = np.sort(scores)
        below = np.searchsorted(ranked, thresholds, side="left")
        return np.append(len(ranked) - below, len(ranked)).astype(np.float64)
    order = np.argsort(scores)
    below = np.searchsorted(scores[order], thresholds, side="left")
    total = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    return np.append(total[below], total[0])


def image_rows(normal: Float, anomalous: Float, shares: Sequence[Shares], thresholds: Float) -> list[Matrix]:
    """One image's row of each table: its normal and its anomalous pixels, and what these add to each overlap."""
    overlaps = [image_row(anomalous, thresholds, weights) for weights in shares]
    return [image_row(normal, thresholds), image_row(anomalous, thresholds), *overlaps]


def resample(tables: Tables, replicates: int, seed: int) -> Tables:
    """Sums over images drawn with replacement, those with and those without an anomaly apart."""
    rng = np.random.default_rng(seed)
    with_anomaly = tables.anomalous[:, -1] > 0
    parts = []
    rows = max(1, _BATCH // len(with_anomaly))
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        weights = np.zeros((count, len(with_anomaly)))
        for stratum in (with_anomaly, ~with_anomaly):
            if size := int(stratum.sum()):
                weights[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=count)
        parts.append([weights @ table for table in tables if table is not None])
    sums = [np.concatenate(part) for part in zip(*parts, strict=True)]
    # Where some images are anomalous all over, a resample may hold no normal pixel: it has no rate to offer.
    kept = sums[0][:, -1] > 0
    return Tables(*(each[kept] for each in sums))


def curve_metrics(sums: Tables, max_fpr: float, tpr: float) -> dict[str, Matrix]:
    """Every pixel metric of each row of summed counts, with lines between the thresholds."""
    normal, anomalous, *overlaps = (np.insert(table, 0, 0.0, axis=1) for table in sums if table is not None)
    alarms, found = normal / normal[:, -1:], anomalous / anomalous[:, -1:]
    last_first = slice(None, None, -1)
    limits = {"aupro": max_fpr, "auspro": SATURATED_MAX_FPR}
    areas = {
        name: area_up_to(alarms, overlap / overlap[:, -1:], limit)
        for (name, limit), overlap in zip(limits.items(), overlaps, strict=False)
    }
    return {
        "auroc": area_up_to(alarms, found, 1.0),
        "aupr_in": average_precision_of(
            (normal[:, -1:] - normal)[:, last_first], (anomalous[:, -1:] - anomalous)[:, last_first]
        ),
        "aupr_out": average_precision_of(anomalous, normal),
        f"fpr_at_tpr{round(100 * tpr)}": 1 - _height_at(alarms, found, 1 - tpr),
        "detection_error": detection_error_of(anomalous, normal),
        "f1_max": f1_max_of(anomalous, normal),
    } | areas


def area_up_to(across: Matrix, up: Matrix, limit: float) -> Matrix:
    """Area under each row's polygon from 0 to `limit`, divided by `limit`."""
    left, right = np.minimum(across[:, :-1], limit), np.minimum(across[:, 1:], limit)
    run = np.diff(across, axis=1)
    share = np.divide(right - left, run, out=np.zeros_like(run), where=run > 0)
    area: Matrix = ((right - left) * (up[:, :-1] + share * np.diff(up, axis=1) / 2)).sum(axis=1) / limit
    return area


def _height_at(across: Matrix, up: Matrix, place: float) -> Matrix:
    return np.array([np.interp(place, row, column) for row, column in zip(across, up, strict=True)])


def estimates(
    tables: Tables,
    values: dict[str, float],
    *,
    max_fpr: float,
    tpr: float,
    confidence: float,
    seed: int,
    replicates: int = REPLICATES,
) -> dict[str, Estimate]:
    """The exact values with intervals (see `mirrored`) over resampled images.

    One anomalous image says nothing about how anomalies differ: with fewer than two, each interval is [0, 1].
    """
    check_confidence(confidence)
    if int((tables.anomalous[:, -1] > 0).sum()) < 2:
        return {name: Estimate(value, 0.0, 1.0) for name, value in values.items()}
    whole = curve_metrics(
        Tables(*(table.sum(axis=0, keepdims=True) for table in tables if table is not None)), max_fpr, tpr
    )
    drawn = curve_metrics(resample(tables, replicates, seed), max_fpr, tpr)
    # The table's thresholds shift a value a little, alike in all replicates: only the spread is taken from them.
    return {
        name: mirrored(
            value,
            drawn[name] + (value - float(whole[name][0])),
            confidence,
            0.5 if name == "detection_error" else 1.0,
        )
        for name, value in values.items()
    }
