"""One sorted state from which every threshold metric is read, exactly."""

import bisect
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dracones.metrics.inputs import Bool, Float, to_scores_and_labels

Positive = Literal["in", "out"]
Area = Literal["average_precision", "trapezoid"]

_BLOCK = 1 << 16  # numbers per pass: small enough to stay in the second-level cache
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


class Ranking:
    """Scores and labels, sorted once; all metrics are read from the integer counts at each distinct score.

    Larger score = more anomalous; label 1 = anomalous = `"out"` (of distribution), 0 = normal = `"in"`. Only the
    order of the scores matters: any strictly increasing transformation gives the same numbers. Infinities
    are ordinary scores; tied scores are one threshold. float32 scores are sorted as 64-bit keys (score bits
    made order-preserving, label in the last bit), which needs no argsort; float64 scores are never rounded.

    Args:
        scores: any shape, array or tensor.
        labels: same shape; booleans or 0 and 1.

    Raises:
        ValueError: NaN scores (with their count), labels other than 0 and 1, shapes that differ, one class only.
        TypeError: not numbers.

    Example:
        >>> ranking = Ranking([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> ranking.auroc(), round(ranking.aupr("out"), 4)
        (0.75, 0.8333)
        >>> ranking.f1_max()
        F1Max(value=0.8, threshold=0.35)
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        read_scores, read_labels = to_scores_and_labels(scores, labels)
        if read_scores.dtype == np.float64 and _fits_float32(read_scores):
            read_scores = read_scores.astype(np.float32)
        if read_scores.dtype == np.float32:
            self._sorted, ends, anomalous = _sort_packed(read_scores, read_labels)
        else:
            self._sorted, ends, anomalous = _sort_indirect(read_scores, read_labels)
        self._ends = ends
        self._anomalous = anomalous
        self.anomalous = int(anomalous[-1])
        self.normal = int(read_scores.size) - self.anomalous

    def __len__(self) -> int:
        """Number of distinct scores."""
        return len(self._ends)

    def __repr__(self) -> str:
        return f"Ranking({self.normal} normal, {self.anomalous} anomalous, {len(self)} distinct scores)"

    @property
    def thresholds(self) -> Float:
        """The distinct scores, ascending."""
        return _decode(self._sorted[self._ends])

    def counts(self) -> tuple[Counts, Counts]:
        """How many normal, and how many anomalous, lie at or below each of `thresholds`."""
        anomalous = self._anomalous.astype(np.int64)
        return self._ends + np.int64(1) - anomalous, anomalous

    def steps(self, positive: Positive) -> Iterator[Steps]:
        """All steps of the staircase in blocks, by ascending score; `positive` names the class to be found."""
        _check_positive(positive)
        normal_carry = anomalous_carry = 0
        for start in range(0, len(self), _BLOCK):
            stop = min(start + _BLOCK, len(self))
            normal = np.empty(stop - start + 1, dtype=np.int64)
            anomalous = np.empty_like(normal)
            normal[0], anomalous[0] = normal_carry, anomalous_carry
            anomalous[1:] = self._anomalous[start:stop]
            np.subtract(self._ends[start:stop], anomalous[1:], out=normal[1:], casting="unsafe")
            normal[1:] += 1
            normal_carry, anomalous_carry = int(normal[-1]), int(anomalous[-1])
            if positive == "in":
                yield Steps(normal[:-1], normal[1:], anomalous[:-1], anomalous[1:])
            else:
                found, alarms = self.anomalous - anomalous, self.normal - normal
                yield Steps(found[1:], found[:-1], alarms[1:], alarms[:-1])

    def size(self, positive: Positive) -> int:
        """Number of items of a class."""
        _check_positive(positive)
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

    def operating_point(self, true_positive_rate: float, positive: Positive) -> OperatingPoint:
        """The strictest threshold that still finds at least `true_positive_rate` of the positive class."""
        size = self.size(positive)
        needed = needed_count(true_positive_rate, size)
        places = range(len(self))
        if positive == "in":
            place = bisect.bisect_left(places, needed, key=lambda k: int(self._ends[k]) + 1 - int(self._anomalous[k]))
            alarms = int(self._anomalous[place])
            found = int(self._ends[place]) + 1 - alarms
            other = self.anomalous
        else:
            place = bisect.bisect_right(places, self.anomalous - needed, key=lambda k: int(self._anomalous[k]))
            below = (int(self._ends[place - 1]) + 1, int(self._anomalous[place - 1])) if place else (0, 0)
            found = self.anomalous - below[1]
            alarms = self.normal - (below[0] - below[1])
            other = self.normal
        return OperatingPoint(alarms / other, found / size, float(_decode(self._sorted[self._ends[[place]]])[0]))

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
        return F1Max(best, float(_decode(self._sorted[self._ends[[place]]])[0]))


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


def _check_positive(positive: str) -> None:
    if positive not in ("in", "out"):
        raise ValueError(f"positive: expected 'in' (normal, label 0) or 'out' (anomalous, label 1), got {positive!r}")


def _fits_float32(scores: Float) -> bool:
    """Whether float32 holds these float64 numbers without rounding, as it does when a float32 was widened."""
    with np.errstate(over="ignore"):
        for start in range(0, scores.size, _BLOCK):
            block = scores[start : start + _BLOCK]
            if not np.array_equal(block.astype(np.float32), block):
                return False
    return True


def _count_type(size: int) -> type[np.signedinteger]:
    return np.int32 if size < 2**31 else np.int64


def order_preserving_bits(scores: Float) -> NDArray[np.int32]:
    """float32 scores as int32 of the same order; -0 and +0 become equal."""
    bits = (scores + np.float32(0)).view(np.int32)
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    return bits


def scores_of_bits(bits: NDArray[np.int32]) -> Float:
    """Inverse of `order_preserving_bits`."""
    return (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def _decode(kept: NDArray) -> Float:
    return scores_of_bits((kept >> 1).astype(np.int32)) if kept.dtype == np.int64 else kept


def _sort_packed(scores: Float, labels: Bool) -> tuple[NDArray, NDArray, NDArray]:
    """Sorted keys, the last place of each distinct score, and the anomalous counted up to there."""
    keys = order_preserving_bits(scores).astype(np.int64)
    keys <<= 1
    keys |= labels
    keys.sort()
    kind = _count_type(keys.size)
    anomalous = np.empty(keys.size, dtype=kind)
    last = np.empty(keys.size, dtype=np.bool_)
    last[-1] = True
    carry = 0
    for start in range(0, keys.size, _BLOCK):
        block = keys[start : start + _BLOCK + 1]
        counted = anomalous[start : start + _BLOCK]
        np.cumsum(block[: len(counted)] & 1, dtype=kind, out=counted)
        counted += carry
        carry = int(counted[-1])
        np.greater(block[1:] ^ block[:-1], 1, out=last[start : start + len(block) - 1])
    return keys, *_at_ends(last, anomalous)


def _sort_indirect(scores: Float, labels: Bool) -> tuple[NDArray, NDArray, NDArray]:
    """The same for scores that leave no room for a label in their key."""
    order = np.argsort(scores)
    ranked = scores[order]
    anomalous = np.cumsum(labels[order], dtype=_count_type(scores.size))
    last = np.empty(scores.size, dtype=np.bool_)
    last[-1] = True
    np.not_equal(ranked[1:], ranked[:-1], out=last[:-1])
    return ranked, *_at_ends(last, anomalous)


def _at_ends(last: Bool, anomalous: NDArray) -> tuple[NDArray, NDArray]:
    if last.all():
        return np.arange(last.size, dtype=anomalous.dtype), anomalous
    ends = np.flatnonzero(last)
    return ends.astype(anomalous.dtype), anomalous[ends]
