"""The curves themselves, for figures and for thresholds of one's own."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dracones.metrics.inputs import Float
from dracones.metrics.ranking import Ranking
from dracones.metrics.staircase import Positive


class RocCurve(NamedTuple):
    """Points by falling threshold, from (0, 0) at infinity; an item is positive when its score is >= threshold."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    threshold: Float


class PrCurve(NamedTuple):
    """Points by growing recall, from recall 0 and precision 1; the first threshold finds nothing."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: Float


def roc_curve(scores: ArrayLike, labels: ArrayLike, *, corners_only: bool = True) -> RocCurve:
    """Receiver operating characteristic with the anomalous class (label 1) as positive.

    `corners_only` leaves out the points on straight pieces, which changes neither the drawing nor the area.

    Example:
        >>> curve = roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    ranking = Ranking(scores, labels)
    normal, anomalous = ranking.counts()
    alarms = np.concatenate([[0], (ranking.normal - normal)[-2::-1], [ranking.normal]])
    found = np.concatenate([[0], (ranking.anomalous - anomalous)[-2::-1], [ranking.anomalous]])
    threshold = np.concatenate([[np.inf], ranking.thresholds[::-1]])
    if corners_only and len(alarms) > 2:
        # A corner is where the slope changes; products of integers compare slopes exactly.
        rise, run = np.diff(found), np.diff(alarms)
        corner = rise[1:] * run[:-1] != rise[:-1] * run[1:]
        kept = np.concatenate([[True], corner, [True]])
        alarms, found, threshold = alarms[kept], found[kept], threshold[kept]
    return RocCurve(alarms / ranking.normal, found / ranking.anomalous, threshold)


def pr_curve(scores: ArrayLike, labels: ArrayLike, *, positive: Positive = "out") -> PrCurve:
    """Precision and recall at every distinct score, with `positive` as the class to be found.

    With `positive="in"` an item is found when its score is <= threshold. Ends at the threshold that finds all.

    Example:
        >>> curve = pr_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> curve.recall.tolist()
        [0.0, 0.5, 0.5, 1.0, 1.0]
    """
    ranking = Ranking(scores, labels)
    steps = list(ranking.steps(positive))
    found = np.concatenate([step.true_positives for step in steps])
    alarms = np.concatenate([step.false_positives for step in steps])
    threshold, nothing = ranking.thresholds, -np.inf
    if positive == "out":
        found, alarms, threshold, nothing = found[::-1], alarms[::-1], threshold[::-1], np.inf
    return PrCurve(
        np.concatenate([[1.0], found / (found + alarms)]),
        np.concatenate([[0.0], found / ranking.size(positive)]),
        np.concatenate([[nothing], threshold]),
    )
