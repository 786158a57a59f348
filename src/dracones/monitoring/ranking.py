"""Online p-values: each score's place among all scores before it, which is uniform as long as nothing changes."""

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple


class Placed(NamedTuple):
    """A randomised p-value in (0, 1], and how far from uniform its law may be."""

    p_value: float
    slack: float


class Ranking:
    """Places scores among the calibration's and those seen since.

    With m scores before, ``p = (#{above} + U (1 + #{equal})) / (m + 1)``, U uniform. As the set grows with every score,
    the p-values of exchangeable images (calibration images among them) are uniform and independent, exactly: the
    p-values against a fixed calibration are not, as they share its chance.

    A set that grows for ever needs ever more memory. Beyond `keep` scores it is fixed, and from there on the p-values
    are uniform but for `slack`: the empirical distribution of independent scores is within
    ``sqrt(log(2 / risk) / (2 m))`` of theirs with probability 1 - risk.

    Args:
        calibration: scores of normal images, ascending; shared, never changed.
        keep: how many scores since are kept.
        risk: probability that `slack` is exceeded.

    References: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005, theorem 8.2 (online p-values);
    Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", 1990.

    Example:
        >>> ranking = Ranking(array("d", [1.0, 2.0, 3.0]), keep=2, risk=0.001)
        >>> [ranking.place(score, 0.5) for score in (2.5, 2.5)]
        [Placed(p_value=0.375, slack=0.0), Placed(p_value=0.4, slack=0.0)]
        >>> round(ranking.place(2.5, 0.5).slack, 2)
        1.04
    """

    def __init__(self, calibration: Sequence[float], *, keep: int, risk: float) -> None:
        self.calibration = calibration
        self.seen = array("d")
        self.keep = keep
        self.risk = risk

    def place(self, score: float, coin: float) -> Placed:
        """The p-value of a score, which then joins the set.

        Args:
            score: larger = more anomalous.
            coin: uniform in (0, 1], independent of all scores.
        """
        count = len(self.calibration) + len(self.seen)
        at_most = bisect_right(self.calibration, score) + bisect_right(self.seen, score)
        below = bisect_left(self.calibration, score) + bisect_left(self.seen, score)
        p_value = (count - at_most + coin * (1 + at_most - below)) / (count + 1)
        slack = 0.0
        if len(self.seen) < self.keep:
            insort(self.seen, score)
        else:
            # The last term: p-values count the score itself, the empirical distribution does not.
            slack = math.sqrt(math.log(2 / self.risk) / (2 * count)) + 1 / (count + 1) if count else 1.0
        return Placed(p_value, slack)
