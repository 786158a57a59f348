"""Every threshold metric, written once over integer counts at the distinct scores."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Positive = Literal["in", "out"]
Area = Literal["average_precision", "trapezoid"]

BLOCK = 1 << 16  # numbers per pass: small enough to stay in the second-level cache
Counts = NDArray[np.int64]


class OperatingPoint(NamedTuple):
    """A threshold and what it does; `threshold` is the score on which the last positive falls."""

    false_positive_rate: float
    true_positive_rate: float
    threshold: float


class F1Max(NamedTuple):
    """The best F1 over all thresholds; an item is called anomalous when its score is >= `threshold`."""

    value: float
    threshold: float


class Steps(NamedTuple):
    """Cumulative counts on both sides of consecutive distinct scores, seen from one class called positive.

    `*_before`: those ranked strictly ahead of the score; `true_positives`, `false_positives`: ties included.
    """

    true_positives_before: Counts
    true_positives: Counts
    false_positives_before: Counts
    false_positives: Counts


class Staircase(ABC):
    """Cumulative counts of both classes by score, and the metrics that depend on nothing else.

    An implementer gives the numbers of `normal` (`"in"`) and `anomalous` (`"out"`) items, `steps`, which must hold at
    least every distinct score of the class called positive, `score_at` and `operating_point`.
    """

    normal: int
    anomalous: int

    @abstractmethod
    def steps(self, positive: Positive) -> Iterator[Steps]:
        """All steps of the staircase in blocks, by ascending score; `positive` names the class to be found."""

    @abstractmethod
    def score_at(self, place: int) -> float:
        """The score of a step, counted over the blocks of `steps("out")`."""

    @abstractmethod
    def operating_point(self, true_positive_rate: float, positive: Positive) -> OperatingPoint:
        """The strictest threshold that still finds at least `true_positive_rate` of the positive class."""

    def size(self, positive: Positive) -> int:
        """Number of items of a class."""
        check_positive(positive)
        return self.normal if positive == "in" else self.anomalous

    def auroc(self) -> float:
        """Probability that an anomalous item scores above a normal one, a tie counting half (Mann-Whitney)."""
        twice = sum(
            int(
                np.dot(
                    step.true_positives - step.true_positives_before, step.false_positives_before + step.false_positives
                )
            )
            for step in self.steps("out")
        )
        return 1.0 - twice / (2 * self.anomalous * self.normal)

    def aupr(self, positive: Positive, area: Area = "average_precision") -> float:
        """Area under precision over recall with `positive` as the class to be found.

        `average_precision` sums precision x step in recall (scikit-learn's `average_precision_score`);
        `trapezoid` joins the points by lines, which is optimistic under ties (Davis and Goadrich, 2006).
        """
        if area not in ("average_precision", "trapezoid"):
            raise ValueError(f"area: expected 'average_precision' or 'trapezoid', got {area!r}")
        sums = []
        for step in self.steps(positive):
            gained = step.true_positives - step.true_positives_before
            height = step.true_positives / (step.true_positives + step.false_positives)
            if area == "trapezoid":
                before = step.true_positives_before + step.false_positives_before
                left = np.divide(step.true_positives_before, before, out=np.ones(len(before)), where=before > 0)
                height = (height + left) / 2
            sums.append(float(np.dot(gained, height)))
        return math.fsum(sums) / self.size(positive)

    def fpr_at_tpr(self, tpr: float = 0.95, *, positive: Positive) -> float:
        """False positive rate at the strictest threshold that finds at least `tpr` of the positive class."""
        return self.operating_point(tpr, positive).false_positive_rate

    def detection_error(self) -> float:
        """Smallest mean of the two error rates over all thresholds, in [0, 0.5] (Liang et al., 2018, section 4.2)."""
        best = self.anomalous * self.normal
        for step in self.steps("out"):
            errors = (self.anomalous - step.true_positives) * self.normal + step.false_positives * self.anomalous
            best = min(best, int(errors.min()))
        return best / (2 * self.anomalous * self.normal)

    def f1_max(self) -> F1Max:
        """Largest F1 of the anomalous class over all thresholds; of equal ones, the highest threshold."""
        best, place, start = -1.0, 0, 0
        for step in self.steps("out"):
            values = 2 * step.true_positives / (step.true_positives + step.false_positives + self.anomalous)
            local = len(values) - 1 - int(np.argmax(values[::-1]))
            if values[local] >= best:
                best, place = float(values[local]), start + local
            start += len(values)
        return F1Max(best, self.score_at(place))


def needed_count(rate: float, size: int) -> int:
    """Smallest count whose share of `size` is at least `rate`, compared as floats (so 0.07 of 100 is 7, not 8)."""
    if not 0 < rate <= 1:
        raise ValueError(f"tpr: expected a rate in (0, 1], got {rate}")
    count = math.ceil(rate * size)
    while count > 1 and (count - 1) / size >= rate:
        count -= 1
    while count / size < rate:
        count += 1
    return max(count, 1)


def check_positive(positive: str) -> None:
    """Raise ValueError unless `positive` names a class."""
    if positive not in ("in", "out"):
        raise ValueError(f"positive: expected 'in' (normal, label 0) or 'out' (anomalous, label 1), got {positive!r}")
