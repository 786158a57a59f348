"""Split-conformal calibration: p-values and thresholds whose false-alarm rate holds whatever the scores' law."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dracones.metrics import Estimate
from dracones.metrics.inputs import Float, to_scores


class TooFewScores(ValueError):  # noqa: N818 (reads as what it says: the set is too small)
    """The calibration set cannot carry the promise asked of it; `needed` says how many scores could."""

    def __init__(self, given: int, needed: int, rate: float, confidence: float | None, note: str = "") -> None:
        promise = "" if confidence is None else f" with confidence {confidence:g}"
        super().__init__(
            f"calibration: a false-alarm rate of {rate:g}{promise} needs at least {needed} scores of normal images, "
            f"got {given}{note}; add {needed - given} more, or ask for a higher rate"
        )
        self.given = given
        self.needed = needed


class Conformal:
    """Turns scores into p-values and a promised false-alarm rate into a threshold, from normal scores alone.

    If a new normal image and the n calibration images are exchangeable (none of them seen in training), then
    p = (1 + #{calibration >= score}) / (n + 1) satisfies P(p <= a) <= a for every a and every law of the scores.
    The alarm "p <= a" is the alarm "score > threshold", where the threshold is the floor(a (n + 1))-th largest
    calibration score. Ties only lower the realised rate; nothing is assumed of the law, not even continuity.

    That promise is an average over calibration sets. With `confidence`, it is made for the set at hand: the rate
    realised by this very threshold is at most the promised one with that probability (over calibration sets).
    The rate realised at the j-th largest of n scores is Beta(j, n + 1 - j), or less under ties.

    References: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005, proposition 2.9 for the
    p-values; Vovk, "Conditional validity of inductive conformal predictors", 2012, proposition 2a for the Beta
    law; Bates, Candes, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", 2023.

    Example:
        >>> conformal = Conformal().fit(range(1, 100))
        >>> conformal.threshold(0.05)
        95.0
        >>> conformal.p_values([0, 50, 1000]).tolist()
        [1.0, 0.51, 0.01]
        >>> Conformal.needed_count(0.01), Conformal.needed_count(0.01, confidence=0.95)
        (99, 299)
    """

    def __init__(self) -> None:
        self._scores: Float = np.empty(0)

    def fit(self, scores: ArrayLike) -> Self:
        """Take these scores of normal images, in place of any before; returns itself.

        Args:
            scores: larger = more anomalous; any shape; of normal images kept out of training.

        Raises:
            ValueError: no scores, or scores among them that are not finite (with their count): an infinite one would
                be a threshold that never alarms, or always.
        """
        read = to_scores(scores, "calibration scores").ravel()
        if not read.size:
            raise ValueError("calibration scores: expected at least one, got none")
        infinite = int(np.isinf(read).sum())
        if infinite:
            raise ValueError(
                f"calibration scores: {infinite} of {read.size} are not finite; no threshold can be promised from them"
            )
        self._scores = np.sort(read)
        self._scores.setflags(write=False)
        return self

    @property
    def scores(self) -> Float:
        """The calibration scores, ascending, read-only; empty before `fit`."""
        return self._scores

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        if not len(self):
            return "Conformal(not fitted)"
        return f"Conformal({len(self)} scores from {self._scores[0]:g} to {self._scores[-1]:g})"

    def p_values(self, scores: ArrayLike, *, seed: int | np.random.Generator | None = None) -> NDArray[np.float64]:
        """Conformal p-values in (0, 1], of the same shape as the scores; small = anomalous.

        Args:
            scores: larger = more anomalous.
            seed: given, the p-values are randomised, (#{>} + U (1 + #{=})) / (n + 1) with U uniform: exactly
                uniform for normal images even under ties, at the price of a coin; without, ties count in full.

        Raises:
            ValueError: NaN scores (with their count), or not fitted.
        """
        self._check_fitted()
        asked = to_scores(scores)
        at_least = len(self) - np.searchsorted(self._scores, asked, side="left")
        if seed is None:
            return np.asarray((1.0 + at_least) / (len(self) + 1.0))
        above = len(self) - np.searchsorted(self._scores, asked, side="right")
        # 1 - U lies in (0, 1]: a p-value of zero would promise the impossible.
        share = 1.0 - np.random.default_rng(seed).random(asked.shape)
        return np.asarray((above + share * (1.0 + at_least - above)) / (len(self) + 1.0))

    def threshold(self, false_alarm_rate: float, confidence: float | None = None) -> float:
        """Score above which (strictly) an image is called anomalous.

        Args:
            false_alarm_rate: promised share of normal images that raise an alarm, in (0, 1).
            confidence: none, the promise holds on average over calibration sets; given, the realised rate
                is at most the promised one with at least this probability.

        Raises:
            TooFewScores: the calibration set is too small for the rate; says how many scores are needed.
        """
        return float(self._scores[len(self) - self.rank(false_alarm_rate, confidence)])

    def level(self, false_alarm_rate: float, confidence: float | None = None) -> float:
        """The p-value at or below which an image is called anomalous: `p <= level` is `score > threshold`."""
        return self.rank(false_alarm_rate, confidence) / (len(self) + 1.0)

    def is_anomalous(
        self, scores: ArrayLike, false_alarm_rate: float, confidence: float | None = None
    ) -> NDArray[np.bool_]:
        """Verdicts, of the same shape as the scores."""
        # Both sides in their own precision: a threshold rounded to the scores' float32 could change sides.
        position = len(self) - self.rank(false_alarm_rate, confidence)
        return np.greater(to_scores(scores), self._scores[position : position + 1])

    def rank(self, false_alarm_rate: float, confidence: float | None = None) -> int:
        """Which calibration score, counted from the largest (1), is the threshold."""
        self._check_fitted()
        rate = _checked(false_alarm_rate, "false_alarm_rate")
        needed = self.needed_count(false_alarm_rate, confidence)
        if len(self) < needed:
            raise TooFewScores(len(self), needed, false_alarm_rate, confidence)
        if confidence is None:
            return math.floor(rate * (len(self) + 1))
        return _largest_safe_rank(len(self), float(rate), confidence)

    @staticmethod
    def needed_count(false_alarm_rate: float, confidence: float | None = None) -> int:
        """Smallest calibration set that can promise the rate (at this confidence, if given)."""
        rate = _checked(false_alarm_rate, "false_alarm_rate")
        on_average = math.ceil(1 / rate) - 1
        if confidence is None:
            return max(on_average, 1)
        certainty = float(_checked(confidence, "confidence"))
        # With rank 1, P(rate realised <= rate) = 1 - (1 - rate)^n.
        count = max(1, math.ceil(math.log1p(-certainty) / math.log1p(-float(rate))) - 1)
        while _largest_safe_rank(count, float(rate), certainty) < 1:
            count += 1
        return count

    def rate_interval(
        self,
        false_alarm_rate: float,
        confidence: float | None = None,
        *,
        images: int | None = None,
        coverage: float = 0.95,
    ) -> tuple[float, float]:
        """Where the realised false-alarm rate will lie with probability `coverage`, before any image is scored.

        Args:
            false_alarm_rate: the promised rate.
            confidence: as given to `threshold`.
            images: none, the long-run rate (a Beta law); given, the share of alarms among that many new normal
                images (a beta-binomial law), which is wider.
            coverage: probability that the interval holds the rate, half of the rest on either side.
        """

        from scipy.special import betaincinv

        rank = self.rank(false_alarm_rate, confidence)
        tail = (1 - float(_checked(coverage, "coverage"))) / 2
        tails = np.array([tail, 1 - tail])
        shape = rank, len(self) + 1 - rank
        if images is None:
            low, high = betaincinv(*shape, tails)
        elif images < 1:
            raise ValueError(f"images: expected at least one, got {images}")
        else:
            low, high = np.searchsorted(_beta_binomial(images, *shape), tails) / images
        return float(low), float(high)

    def state(self) -> tuple[dict[str, Float], dict[str, float]]:
        """Arrays and numbers from which `from_state` rebuilds the same calibration; nothing else is kept."""
        return {"scores": self._scores.copy()}, {"count": float(len(self))}

    @classmethod
    def from_state(cls, arrays: Mapping[str, Any], numbers: Mapping[str, float]) -> Self:
        """Rebuild from `state`; arrays may also be tensors or the lists that JSON makes of them.

        Raises:
            ValueError: entries missing, or not as many scores as were saved.
        """
        if "scores" not in arrays or "count" not in numbers:
            raise ValueError(
                f"calibration state: expected the array 'scores' and the number 'count', got {sorted(arrays)} "
                f"and {sorted(numbers)}; was it saved by Conformal.state?"
            )
        rebuilt, count = cls(), int(numbers["count"])
        found = to_scores(arrays["scores"], "calibration scores").size
        if found != count:
            raise ValueError(f"calibration state: expected {count} scores, got {found}; the file is damaged")
        return rebuilt.fit(arrays["scores"]) if count else rebuilt

    def _check_fitted(self) -> None:
        if not len(self):
            raise ValueError("calibration: no scores of normal images yet; call fit(scores) first")


def realised_rate(alarms: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Share of alarms among normal images, with the exact binomial interval.

    Args:
        alarms: verdicts (True = alarm) of normal images that took no part in training or calibration.
        confidence: of the two-sided interval.

    Reference: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", 1934.

    Example:
        >>> rate = realised_rate([True] + 99 * [False])
        >>> rate.value, round(rate.low, 6), round(rate.high, 6)
        (0.01, 0.000253, 0.054459)
    """
    verdicts = to_scores(alarms, "alarms")
    if not verdicts.size:
        raise ValueError("alarms: expected at least one verdict, got none")
    if not np.isin(verdicts, (0, 1)).all():
        raise ValueError("alarms: expected verdicts (True or False), got other numbers; were these scores?")
    return clopper_pearson(int(verdicts.sum(dtype=np.float64)), verdicts.size, confidence)


def clopper_pearson(count: int, total: int, confidence: float = 0.95) -> Estimate:
    """Exact interval of a binomial rate of which `count` of `total` were seen.

    Example:
        >>> clopper_pearson(0, 299).high < 0.0123
        True
    """

    from scipy.special import betaincinv

    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count of total: expected 0 <= count <= total and total >= 1, got {count} of {total}")
    tail = (1 - float(_checked(confidence, "confidence"))) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Estimate(count / total, low, high)


def _largest_safe_rank(count: int, rate: float, confidence: float) -> int:
    """Largest j with P(Beta(j, n + 1 - j) <= rate) = P(Binomial(n, rate) >= j) >= confidence; 0 if there is none."""

    from scipy.special import bdtrc

    low, high = 0, count + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bdtrc(middle - 1, count, rate) >= confidence else (low, middle)
    return low


def _beta_binomial(trials: int, first: int, second: int) -> NDArray[np.float64]:
    """P(at most k of the trials), k = 0 ... trials, when their common rate is Beta(first, second)."""

    from scipy.special import betaln, gammaln

    k = np.arange(trials + 1)
    ways = gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1)
    return np.cumsum(np.exp(ways + betaln(k + first, trials - k + second) - betaln(first, second)))


def _checked(rate: float, what: str) -> Fraction:
    """The number as it was written: 0.29 of 100 is 29, although the float 0.29 is a little less."""
    if not 0 < rate < 1:
        raise ValueError(f"{what}: expected a number strictly between 0 and 1, got {rate}")
    return Fraction(str(float(rate)))
