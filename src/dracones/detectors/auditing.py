"""Which images a human looks at whatever the verdict: a coin that their pixels toss, the same whoever asks."""

import numpy as np
from numpy.typing import NDArray

from dracones.calibration.met import UNREADABLE, Digests
from dracones.detectors.familiar import digests
from dracones.images import ImageCollection
from dracones.training import Progress


def audited(found: Digests, share: float) -> NDArray[np.bool_]:
    """Which of these digests are of the audit sample, ``[N]``: each with probability ``share``, unreadable ones never.

    The coin is a mix of the digest's bits (splitmix64), and so knows nothing of the score. A larger share holds every
    image of a smaller one.

    Raises:
        ValueError: a share outside (0, 1].

    Example:
        >>> found = np.arange(1, 10_001, dtype=np.uint64)
        >>> round(float(audited(found, 0.1).mean()), 2), bool(audited(found, 1).all())
        (0.1, True)
    """
    if not 0 < share <= 1:
        raise ValueError(f"audit_share: expected a share above 0 and at most 1, got {share}")
    mixed = found + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed = mixed ^ (mixed >> np.uint64(31))
    inside: NDArray[np.bool_] = (mixed.astype(np.float64) / 2.0**64 < share) | (share == 1)
    readable: NDArray[np.bool_] = found != UNREADABLE
    return np.logical_and(inside, readable)


def audit(images: ImageCollection, share: float, progress: Progress | None = None) -> NDArray[np.bool_]:
    """Which images of a collection are of the audit sample, by their pixels alone: names and formats do not count.

    Raises:
        ValueError: a share outside (0, 1].
    """
    audited(np.empty(0, dtype=np.uint64), share)  # before anything is read
    return audited(digests(images, progress), share)
