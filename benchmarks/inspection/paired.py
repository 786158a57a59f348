"""Is one row better than another on the same test images? A paired, stratified bootstrap of their difference."""

import numpy as np
from numpy.typing import ArrayLike

from dracones.metrics import auroc


def difference(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """AUROC of the first scores less that of the second, its 95 % interval, and the two-sided p-value of no difference.

    Both are judged on the same resampled images, so what makes a test set hard for both does not count.

    >>> labels = [0] * 20 + [1] * 20
    >>> good, chance = list(range(40)), [i * 7 % 40 for i in range(40)]
    >>> found = difference(good, chance, labels, resamples=200)
    >>> found["low"] > 0, found["p"] < 0.02
    (True, True)
    """
    one, other, truth = (np.asarray(values) for values in (first, second, labels))
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(truth == label) for label in (0, 1)]
    drawn = []
    for _ in range(resamples):
        chosen = np.concatenate([rng.choice(group, len(group)) for group in places])
        drawn.append(float(auroc(one[chosen], truth[chosen])) - float(auroc(other[chosen], truth[chosen])))
    low, high = np.quantile(drawn, [0.025, 0.975])
    tail = min(np.mean(np.array(drawn) <= 0), np.mean(np.array(drawn) >= 0))
    value = float(auroc(one, truth)) - float(auroc(other, truth))
    return {
        "difference": round(value, 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "p": round(float(min(1.0, 2 * max(tail, 1 / resamples))), 4),
    }
