"""Whether a promised false-alarm rate was kept on normal images at hand: a test, and its result in words."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from numpy.typing import ArrayLike

from dracones.calibration.conformal import Conformal, clopper_pearson
from dracones.metrics import Estimate
from dracones.metrics.inputs import to_scores

State = Literal["kept", "strained", "shifted", "broken"]
SIGNIFICANCE = 0.01
"""A promise that holds is called broken in at most this share of tests, and so is one called shifted."""


@dataclass(frozen=True)
class Promise:
    """What became of a promise.

    Attributes:
        state: ``kept``: alarms are as promised; ``strained``: more than promised, as so few calibration images allow
            by chance; ``shifted``: alarms are as promised, but normal images score higher than the calibration images;
            ``broken``: more alarms than chance allows.
        rate: the promised false-alarm rate.
        realised: share of alarms among the normal images, with its exact interval.
        alarms: their number.
        images: the normal images.
        chance: probability of so many alarms where the promise holds.
        chance_of_shift: probability of p-values so small, together, where normal images are like the calibration.
        words: the verdict in a sentence.
    """

    state: State
    rate: float
    realised: Estimate
    alarms: int
    images: int
    chance: float
    chance_of_shift: float
    words: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "realised": self.realised.to_dict()}


def judge_promise(
    calibration: Conformal,
    scores: ArrayLike,
    false_alarm_rate: float,
    confidence: float | None = None,
    *,
    coverage: float = 0.95,
    what: str = "false alarms",
) -> Promise:
    """Test a promise on scores of normal images that neither the fit nor the calibration has seen.

    If the images are exchangeable with the calibration images, the number of alarms among m of them is beta-binomial
    (or less, under ties), whatever the law of the scores: with `confidence` none, its upper tail is the chance. With
    a confidence, the promise is for this very threshold, and the chance is the binomial tail at the promised rate.
    The p-values are tested as a whole by the one-sided test of Kolmogorov and Smirnov on the two sets of scores, which
    depends on nothing but the randomised ranks that the p-values are.

    Args:
        calibration: what set the threshold.
        scores: of normal images, larger = more anomalous.
        false_alarm_rate: promised.
        confidence: as it was given to `Conformal.threshold`.
        coverage: of the interval of the realised rate.
        what: is counted, for the words.

    Reference: Bates, Candes, Lei, Romano, Sesia, "Testing for outliers with conformal p-values", 2023, section 2.

    Example:
        >>> calibration = Conformal().fit(range(1000))
        >>> judge_promise(calibration, range(0, 1000, 5), 0.05).state
        'kept'
        >>> broken = judge_promise(calibration, range(500, 1500, 5), 0.05)
        >>> print(broken.words)
        The promise of 5.00% false alarms is broken: 54.50% [47.33%, 61.54%] of 200 normal images raise one.
    """
    from scipy.stats import betabinom, binom, ks_2samp  # half a second, for whom does judge

    asked = to_scores(scores, "scores of normal images").ravel()
    alarms = int(calibration.is_anomalous(asked, false_alarm_rate, confidence).sum())
    images, count = len(asked), len(calibration)
    if confidence is None:
        rank = calibration.rank(false_alarm_rate)
        chance = float(betabinom.sf(alarms - 1, images, rank, count + 1 - rank))
    else:
        chance = float(binom.sf(alarms - 1, images, false_alarm_rate))
    # Greater: the calibration's distribution function lies above, so its scores lie below.
    chance_of_shift = float(ks_2samp(calibration.scores, asked, alternative="greater", method="asymp").pvalue)
    realised = clopper_pearson(alarms, images, coverage)
    state: State = "kept"
    if chance < SIGNIFICANCE:
        state = "broken"
    elif realised.low > false_alarm_rate:
        state = "strained"
    elif chance_of_shift < SIGNIFICANCE:
        state = "shifted"
    words = _words(state, false_alarm_rate, realised, images, count, what)
    return Promise(state, false_alarm_rate, realised, alarms, images, chance, chance_of_shift, words)


def _words(state: State, rate: float, realised: Estimate, images: int, count: int, what: str) -> str:
    are = "raise one" if what == "false alarms" else "have one"
    of = f"{realised.value:.2%} [{realised.low:.2%}, {realised.high:.2%}] of {images} normal images {are}"
    promise = f"The promise of {rate:.2%} {what}"
    if state == "broken":
        return f"{promise} is broken: {of}."
    if state == "strained":
        return (
            f"{promise} is not kept here: {of}. With {count} calibration images that may be chance: give more, "
            "or ask for a confidence."
        )
    if state == "shifted":
        return (
            f"{promise} holds here: {of}. But normal images score higher than the calibration images did, so they are "
            "of another kind: calibrate on images as these."
        )
    return f"{promise} is kept: {of}."


def coarseness(calibration: Conformal, false_alarm_rate: float, confidence: float | None = None) -> str | None:
    """Why p-values of alarms are alike, in words, where a single calibration image sets the threshold; else None.

    >>> print(coarseness(Conformal().fit(range(25)), 0.05))
    A single calibration image, the highest of 25, sets the threshold: every alarm has p = 1/26 = 0.0385, so p-values \
do not rank alarms (scores do), and that one image decides. From 39 images on it is not one.
    >>> coarseness(Conformal().fit(range(250)), 0.05)
    """
    if calibration.rank(false_alarm_rate, confidence) > 1:
        return None
    count = len(calibration)
    more = "" if confidence is not None else f" From {math.ceil(2 / false_alarm_rate) - 1} images on it is not one."
    return (
        f"A single calibration image, the highest of {count}, sets the threshold: every alarm has p = 1/{count + 1} = "
        f"{1 / (count + 1):.3g}, so p-values do not rank alarms (scores do), and that one image decides.{more}"
    )
