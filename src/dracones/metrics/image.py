"""Metrics of one score an image, each one call; `Ranking` gives several of them for one sort."""

from numpy.typing import ArrayLike

from dracones.metrics.ranking import Ranking
from dracones.metrics.staircase import Area, F1Max, Positive


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the probability that an anomalous item scores above a normal one.

    Exact, a tie counting half. 0.5 is chance, 1 perfect; which class is called positive does not matter.
    `scores`: larger = more anomalous, any shape; `labels`: same shape, 1 = anomalous. Errors: see `Ranking`.

    Example:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75
    """
    return Ranking(scores, labels).auroc()


def aupr_in(scores: ArrayLike, labels: ArrayLike, *, area: Area = "average_precision") -> float:
    """Area under precision over recall, the normal (in-distribution, label 0) items being the positive class.

    By default the average precision of scikit-learn on the negated scores; `area="trapezoid"` joins the points.

    Example:
        >>> round(aupr_in([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 6)
        0.833333
    """
    return Ranking(scores, labels).aupr("in", area)


def aupr_out(scores: ArrayLike, labels: ArrayLike, *, area: Area = "average_precision") -> float:
    """Area under precision over recall, the anomalous (out-of-distribution, label 1) items being positive.

    By default the average precision of scikit-learn; `area="trapezoid"` joins the points.

    Example:
        >>> round(aupr_out([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 6)
        0.833333
    """
    return Ranking(scores, labels).aupr("out", area)


def fpr_at_tpr(scores: ArrayLike, labels: ArrayLike, tpr: float = 0.95, *, positive: Positive = "in") -> float:
    """False positive rate at the strictest threshold that still finds a share `tpr` of the positive class.

    With `positive="in"`, as in the out-of-distribution literature (Hendrycks and Gimpel, 2017; Liang et al., 2018):
    the share of anomalous items taken for normal when at least 95 % of the normal ones are accepted. With
    `positive="out"`: the share of normal items that raise an alarm when at least 95 % of the anomalous are found.

    Example:
        >>> fpr_at_tpr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.5
    """
    return Ranking(scores, labels).fpr_at_tpr(tpr, positive=positive)


def detection_error(scores: ArrayLike, labels: ArrayLike) -> float:
    """Smallest mean of miss rate and false-alarm rate over all thresholds, in [0, 0.5].

    Reference: Liang, Li, Srikant, "Enhancing the reliability of out-of-distribution image detection in neural
    networks", 2018, section 4.2, both classes equally likely.

    Example:
        >>> detection_error([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.25
    """
    return Ranking(scores, labels).detection_error()


def f1_max(scores: ArrayLike, labels: ArrayLike) -> F1Max:
    """Largest F1 of the anomalous class over all thresholds, and the highest threshold that reaches it.

    Example:
        >>> f1_max([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        F1Max(value=0.8, threshold=0.35)
    """
    return Ranking(scores, labels).f1_max()
