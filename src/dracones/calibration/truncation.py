"""Whether scores that are to calibrate were chosen by the verdict that they are to replace."""

from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from dracones.calibration.conformal import Conformal
from dracones.calibration.promise import SIGNIFICANCE
from dracones.metrics.inputs import to_scores


@dataclass(frozen=True)
class Tail:
    """How many new scores lie above the old threshold.

    Attributes:
        above: their number.
        images: all new scores.
        expected: how many would, on average, if the new images are like the old calibration images.
        chance: probability of so few, then.
        state: ``whole``; ``cut``: so few by chance in less than 1 % of sets; ``unknown``: none is above, and that many
            images cannot tell whether any would be.
    """

    above: int
    images: int
    expected: float
    chance: float
    state: Literal["whole", "cut", "unknown"]

    @property
    def words(self) -> str:
        """In a sentence."""
        return (
            f"{self.above} of {self.images} score above the old threshold, where {self.expected:.3g} would be expected "
            f"of images chosen whatever their verdict (so few by chance: {self.chance:.2g})"
        )


def tail_of(old: Conformal, false_alarm_rate: float, confidence: float | None, scores: ArrayLike) -> Tail:
    """Compare new scores of good images with the threshold that an old calibration set.

    Who confirms only images that passed confirms none above the threshold: the new scores are cut off there, a
    threshold from them is lower, and false alarms come about twice as often as promised, three times at the next round.
    If new and old images are exchangeable, the number above the j-th largest of n old scores is beta-binomial with
    parameters j and n + 1 - j, and its lower tail is the chance.

    Example:
        >>> old = Conformal().fit(range(1000))
        >>> tail_of(old, 0.05, None, range(0, 950)).state
        'cut'
        >>> tail_of(old, 0.05, None, range(0, 1000)).state
        'whole'
    """
    from scipy.stats import betabinom

    values = to_scores(scores, "scores of confirmed images").ravel()
    rank, count = old.rank(false_alarm_rate, confidence), len(old)
    above = int(old.is_anomalous(values, false_alarm_rate, confidence).sum())
    expected = len(values) * rank / (count + 1)
    chance = float(betabinom.cdf(above, len(values), rank, count + 1 - rank))
    state: Literal["whole", "cut", "unknown"] = "whole"
    if chance < SIGNIFICANCE:
        state = "cut"
    elif above == 0:
        state = "unknown"
    return Tail(above, len(values), expected, chance, state)
