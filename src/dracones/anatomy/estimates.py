"""Numbers with their intervals: a set too small for a point estimate shows it by the width."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from dracones.metrics import Estimate, Ranking, auroc_interval

CONFIDENCE = 0.95


def mean_estimate(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean with Student's t interval.

    Raises:
        ValueError: fewer than two values, or one that is not finite.

    >>> estimate = mean_estimate([1.0, 2.0, 3.0])
    >>> estimate.value, round(estimate.high - estimate.value, 3)
    (2.0, 2.484)
    """
    sample = _sample(values, "mean")
    half = stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * sample.std(ddof=1) / math.sqrt(len(sample))
    mean = float(sample.mean())
    return Estimate(mean, mean - float(half), mean + float(half))


def difference_estimate(other: ArrayLike, normal: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of ``other`` less mean of ``normal``, with Welch's interval.

    >>> round(difference_estimate([3.0, 5.0], [1.0, 2.0]).value, 3)
    2.5
    """
    first, second = _sample(other, "difference of means"), _sample(normal, "difference of means")
    shares = np.array([first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)])
    variance = float(shares.sum())
    difference = float(first.mean() - second.mean())
    if variance == 0:
        return Estimate(difference, difference, difference)
    freedom = variance**2 / float((shares**2 / np.array([len(first) - 1, len(second) - 1])).sum())
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(variance)
    return Estimate(difference, difference - half, difference + half)


def auroc_estimate(normal_scores: ArrayLike, other_scores: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """AUROC of anomaly scores (larger = more anomalous), the others being the positive class.

    >>> auroc_estimate([0.0, 1.0, 2.0], [3.0, 4.0]).value
    1.0
    """
    normal, other = np.asarray(normal_scores, dtype=float), np.asarray(other_scores, dtype=float)
    labels = np.r_[np.zeros(len(normal), dtype=int), np.ones(len(other), dtype=int)]
    return auroc_interval(Ranking(np.r_[normal, other], labels), confidence)


def correlation_estimate(first: ArrayLike, second: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Pearson correlation with Fisher's interval; without variance on a side it is not defined and refused.

    >>> correlation_estimate([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0]).value
    1.0
    """
    one, two = _sample(first, "correlation"), _sample(second, "correlation")
    if len(one) != len(two):
        raise ValueError(f"correlation: expected two samples of one length, got {len(one)} and {len(two)}")
    if one.std() == 0 or two.std() == 0:
        raise ValueError("correlation: one side is constant, so it has no correlation with the other")
    value = float(np.clip(np.corrcoef(one, two)[0, 1], -1, 1))
    if len(one) < 4:
        return Estimate(value, -1.0, 1.0)
    centre = math.atanh(min(max(value, -1 + 1e-12), 1 - 1e-12))
    half = float(stats.norm.ppf((1 + confidence) / 2)) / math.sqrt(len(one) - 3)
    return Estimate(value, min(value, math.tanh(centre - half)), max(value, math.tanh(centre + half)))


def _sample(values: ArrayLike, what: str) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64).ravel()
    if len(sample) < 2:
        raise ValueError(f"{what}: expected at least 2 images, got {len(sample)}; one has no spread to judge it by")
    bad = int((~np.isfinite(sample)).sum())
    if bad:
        raise ValueError(f"{what}: {bad} of {len(sample)} values are not finite; look at these images first")
    return sample
