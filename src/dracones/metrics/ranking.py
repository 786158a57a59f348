"""One sorted state from which every threshold metric is read, exactly."""

import bisect
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dracones.metrics.inputs import Bool, Float, to_scores_and_labels
from dracones.metrics.staircase import (
    BLOCK,
    Counts,
    OperatingPoint,
    Positive,
    Staircase,
    Steps,
    check_positive,
    needed_count,
)


class Ranking(Staircase):
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
        if read_scores.dtype == np.float64 and fits_float32(read_scores):
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
        check_positive(positive)
        normal_carry = anomalous_carry = 0
        for start in range(0, len(self), BLOCK):
            stop = min(start + BLOCK, len(self))
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

    def score_at(self, place: int) -> float:
        """The distinct score at this place, ascending."""
        return float(_decode(self._sorted[self._ends[[place]]])[0])

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
        return OperatingPoint(alarms / other, found / size, self.score_at(place))


def fits_float32(scores: Float) -> bool:
    """Whether float32 holds these float64 numbers without rounding, as it does when a float32 was widened."""
    with np.errstate(over="ignore"):
        for start in range(0, scores.size, BLOCK):
            block = scores[start : start + BLOCK]
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


def _decode(kept: NDArray[Any]) -> Float:
    return scores_of_bits((kept >> 1).astype(np.int32)) if kept.dtype == np.int64 else kept


def _sort_packed(scores: Float, labels: Bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
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
    for start in range(0, keys.size, BLOCK):
        block = keys[start : start + BLOCK + 1]
        counted = anomalous[start : start + BLOCK]
        np.cumsum(block[: len(counted)] & 1, dtype=kind, out=counted)
        counted += carry
        carry = int(counted[-1])
        # Unsigned, or the step from the last negative to the first positive key would look like a tie.
        np.greater((block[1:] ^ block[:-1]).view(np.uint64), 1, out=last[start : start + len(block) - 1])
    return keys, *_at_ends(last, anomalous)


def _sort_indirect(scores: Float, labels: Bool) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The same for scores that leave no room for a label in their key."""
    order = np.argsort(scores)
    ranked = scores[order]
    anomalous = np.cumsum(labels[order], dtype=_count_type(scores.size))
    last = np.empty(scores.size, dtype=np.bool_)
    last[-1] = True
    np.not_equal(ranked[1:], ranked[:-1], out=last[:-1])
    return ranked, *_at_ends(last, anomalous)


def _at_ends(last: Bool, anomalous: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if last.all():
        return np.arange(last.size, dtype=anomalous.dtype), anomalous
    ends = np.flatnonzero(last)
    return ends.astype(anomalous.dtype), anomalous[ends]
