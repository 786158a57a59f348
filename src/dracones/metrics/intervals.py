"""Confidence intervals read from the counts of a ranking: DeLong for AUROC, stratified bootstrap for the rest.

A bootstrap replicate of a threshold metric needs no new sort: resampling with replacement within each class only
changes how often each distinct score occurs, which is one multinomial draw a class over the counts.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.metrics.ranking import Ranking
from dracones.metrics.staircase import Positive, needed_count

Matrix = NDArray[Any]
Curve = Callable[[Matrix, Matrix], NDArray[np.float64]]

REPLICATES = 1000
_CELLS = 2048  # thresholds a replicate sees at most; the spread needs no more, the value itself uses all
_FURTHEST = 8  # an interval grows to at most about this many times the distance from perfection
_BATCH = 1 << 20  # numbers drawn at a time


class Estimate(NamedTuple):
    """A metric with its confidence interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """For JSON: `value`, `low`, `high`.

        Example:
            >>> Estimate(0.9, 0.8, 0.95).to_dict()
            {'value': 0.9, 'low': 0.8, 'high': 0.95}
        """
        return self._asdict()


def auroc_interval(ranking: Ranking, confidence: float = 0.95) -> Estimate:
    """AUROC with DeLong's variance, the normal interval taken on the logit scale so that it stays in [0, 1].

    Where the variance vanishes (perfect separation, or a class of one) DeLong is silent and would promise
    certainty; there the interval is Newcombe's score interval, which needs the counts alone.

    References: DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves", 1988; Newcombe, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic", 2006, part 2, method 5.

    Example:
        >>> auroc_interval(Ranking([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])).value
        0.8888888888888888
    """
    from scipy.special import expit, logit, ndtri  # a quarter of a second, for who judges; and the runtime has no scipy

    check_confidence(confidence)
    value = ranking.auroc()
    variance = _delong_variance(ranking, value)
    quantile = float(ndtri((1 + confidence) / 2))
    if variance <= 0 or not 0 < value < 1:
        return Estimate(value, *_newcombe(value, ranking.normal, ranking.anomalous, quantile))
    half = quantile * math.sqrt(variance) / (value * (1 - value))
    low, high = expit([logit(value) - half, logit(value) + half])
    return Estimate(value, float(low), float(high))


def _delong_variance(ranking: Ranking, value: float) -> float:
    """Variance of the placement values of each class over its size (DeLong et al., equations 4 to 6)."""
    if ranking.normal < 2 or ranking.anomalous < 2:
        return 0.0
    of_anomalous, of_normal = [], []
    for step in ranking.steps("out"):
        anomalous = step.true_positives - step.true_positives_before
        normal = step.false_positives - step.false_positives_before
        placement = 1 - (step.false_positives_before + step.false_positives) / (2 * ranking.normal)
        of_anomalous.append(float(np.dot(anomalous, (placement - value) ** 2)))
        placement = (step.true_positives_before + step.true_positives) / (2 * ranking.anomalous)
        of_normal.append(float(np.dot(normal, (placement - value) ** 2)))
    return math.fsum(of_anomalous) / ((ranking.anomalous - 1) * ranking.anomalous) + math.fsum(of_normal) / (
        (ranking.normal - 1) * ranking.normal
    )


def _newcombe(value: float, normal: int, anomalous: int, quantile: float) -> tuple[float, float]:
    """Both A with (A - value)^2 = quantile^2 variance(A), by bisection on each side."""
    average = (normal + anomalous) / 2 - 1

    def excess(area: float) -> float:
        spread = area * (1 - area) * (1 + average * ((1 - area) / (2 - area) + area / (1 + area)))
        return (area - value) ** 2 - quantile**2 * spread / (normal * anomalous)

    ends = []
    for end in (0.0, 1.0):
        inside, outside = value, end
        if excess(end) <= 0:
            ends.append(end)
            continue
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
        ends.append(outside)
    return ends[0], ends[1]


def fpr_at_tpr_interval(
    ranking: Ranking,
    tpr: float = 0.95,
    *,
    positive: Positive,
    confidence: float = 0.95,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Estimate:
    """False positive rate at a true positive rate, with the percentile interval of the stratified bootstrap.

    Drawn from its exact law, without resampling: the threshold of a resample is an order statistic of the positive
    class, at the rank ceil(n U) with U a Beta variable. The rate beyond it is then drawn from its Jeffreys
    posterior, Beta(count + 1/2, rest + 1/2), which unlike a resample does not claim certainty at a count of zero.
    """
    check_confidence(confidence)
    rng = np.random.default_rng(seed)
    size, other = ranking.size(positive), ranking.size("out" if positive == "in" else "in")
    needed = needed_count(tpr, size)
    ranks = np.clip(np.ceil(size * rng.beta(needed, size - needed + 1, size=replicates)), 1, size)
    rates = [ranking.fpr_at_tpr(float(rank) / size, positive=positive) for rank in ranks]
    alarms = np.rint(np.multiply(rates, other))
    value = ranking.fpr_at_tpr(tpr, positive=positive)
    low, high = np.quantile(rng.beta(alarms + 0.5, other - alarms + 0.5), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)))


class CurveMetric(NamedTuple):
    """A metric for `bootstrap`: its exact value, its formula on rows of cumulative counts, the largest it can be."""

    value: float
    formula: Curve
    highest: float = 1.0


class Cells(NamedTuple):
    """The staircase cut at scores of the positive class: how many of each class fall between two cuts."""

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    exact: bool


def cells(ranking: Ranking, positive: Positive) -> Cells:
    """Counts between neighbouring scores of the positive class, best-ranked first; a last cell for the rest.

    Between two positives only the number of negatives matters to precision, F1 and detection error,
    so the cut loses nothing; beyond 2,048 distinct positive scores neighbours are joined, equal in positives.
    """
    found, alarms = [np.zeros(1, dtype=np.int64)], [np.zeros(1, dtype=np.int64)]
    parts = list(ranking.steps(positive))
    for step in parts if positive == "in" else reversed(parts):
        gained = step.true_positives > step.true_positives_before
        order = slice(None) if positive == "in" else slice(None, None, -1)
        found.append(step.true_positives[gained][order])
        alarms.append(step.false_positives[gained][order])
    cumulative, false = np.concatenate(found), np.concatenate(alarms)
    exact = len(cumulative) <= _CELLS + 1
    if not exact:
        wanted = np.linspace(0, cumulative[-1], _CELLS + 1)
        cuts = np.unique(np.searchsorted(cumulative, wanted))
        cumulative, false = cumulative[cuts], false[cuts]
    other = ranking.size("out" if positive == "in" else "in")
    return Cells(np.diff(cumulative, append=cumulative[-1]), np.diff(false, append=other), exact)


def average_precision_of(found: Matrix, alarms: Matrix) -> NDArray[np.float64]:
    """Average precision of each row of cumulative counts."""
    total = found + alarms
    precision = np.divide(found, total, out=np.zeros(total.shape), where=total > 0)
    area: NDArray[np.float64] = (np.diff(found, axis=1, prepend=0) * precision).sum(axis=1) / found[:, -1]
    return area


def f1_max_of(found: Matrix, alarms: Matrix) -> NDArray[np.float64]:
    """Largest F1 of each row of cumulative counts."""
    largest: NDArray[np.float64] = (2 * found / (found + alarms + found[:, -1:])).max(axis=1)
    return largest


def detection_error_of(found: Matrix, alarms: Matrix) -> NDArray[np.float64]:
    """Smallest mean error of each row of cumulative counts; finding nothing costs one half."""
    smallest: NDArray[np.float64] = 0.5 * (1 - found / found[:, -1:] + alarms / alarms[:, -1:]).min(axis=1)
    return smallest.clip(max=0.5)


def bootstrap(
    ranking: Ranking,
    positive: Positive,
    metrics: dict[str, CurveMetric],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> dict[str, Estimate]:
    """Intervals (see `mirrored`) of several curve metrics from the same stratified resamples.

    Args:
        metrics: name -> value and formula.
    """
    check_confidence(confidence)
    rng = np.random.default_rng(seed)
    cut = cells(ranking, positive)
    rows = max(1, _BATCH // len(cut.positives))
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in metrics}
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        found = np.cumsum(_resample(cut.positives, count, rng), axis=1)
        alarms = np.cumsum(_resample(cut.negatives, count, rng), axis=1)
        for name, (_, formula, _) in metrics.items():
            drawn[name].append(formula(found, alarms))
    estimates: dict[str, Estimate] = {}
    whole = np.cumsum(cut.positives)[None], np.cumsum(cut.negatives)[None]
    for name, (value, formula, highest) in metrics.items():
        # Joined cells shift a value a little, the same in every replicate: only the spread is taken from them.
        shift = 0.0 if cut.exact else value - float(formula(*whole)[0])
        if ranking.auroc() == 1:
            estimates[name] = _of_perfect(value, formula, ranking, positive, confidence)
            continue
        replicates_of = np.concatenate(drawn[name]) + shift
        estimates[name] = mirrored(value, replicates_of, confidence, highest)
    return estimates


def _resample(counts: NDArray[np.int64], rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    size = int(counts.sum())
    return rng.multinomial(size, counts / size, size=rows)


def _of_perfect(value: float, formula: Curve, ranking: Ranking, positive: Positive, confidence: float) -> Estimate:
    """Where the classes do not overlap every resample is perfect too: the exact binomial bounds of none in n instead.

    Each class is granted the share of errors that n items without one leave possible (Clopper and Pearson, 1934).
    """
    size, other = ranking.size(positive), ranking.size("out" if positive == "in" else "in")
    missed, alarmed = (1 - ((1 - confidence) / 2) ** (1 / count) for count in (size, other))
    found = np.array([[0.0, (1 - missed) * size, size]])
    bound = float(formula(found, np.array([[alarmed * other, alarmed * other, other]]))[0])
    return Estimate(value, min(value, bound), max(value, bound))


def mirrored(value: float, replicates: NDArray[np.float64], confidence: float, highest: float = 1.0) -> Estimate:
    """Basic bootstrap interval on the logit scale: the replicates' quantiles, mirrored at the value.

    Maxima (F1-max, detection error) and average precision are optimistic, and a replicate is so twice over; mirroring
    takes the bias away where percentiles would double it, and the logit keeps the interval inside [0, `highest`]. A
    replicate at either end counts as an eighth of the way there. The interval is widened to hold the value.

    Reference: Davison and Hinkley, "Bootstrap methods and their application", 1997, section 5.2.
    """
    from scipy.special import expit, logit

    share, tails = value / highest, np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    if not 0 < share < 1:
        low, high = tails
    else:
        clipped = np.clip(tails / highest, share / _FURTHEST, 1 - (1 - share) / _FURTHEST)
        high, low = highest * expit(2 * logit(share) - logit(clipped))
    return Estimate(value, max(0.0, min(value, float(low))), min(highest, max(value, float(high))))


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number strictly between 0 and 1, got {confidence}")
