"""Random disjoint parts of a set, the same for the same seed."""

from collections.abc import Sequence

import numpy as np


def random_parts(count: int, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """Places in a set of `count`, rising within each part; sizes are the shares rounded so that nothing is lost.

    Raises:
        ValueError: shares are not positive, sum to more than 1, or leave a part empty.

    Example:
        >>> [part.tolist() for part in random_parts(6, [0.5, 0.5], seed=0)]
        [[2, 3, 5], [0, 1, 4]]
    """
    if any(not share > 0 for share in shares) or sum(shares) > 1 + 1e-9:
        raise ValueError(f"shares {list(shares)} must be positive and sum to at most 1")
    ends = np.rint(np.cumsum(shares) * count).astype(int)
    sizes = np.diff(ends, prepend=0)
    if (sizes == 0).any():
        raise ValueError(f"{count} images are too few for shares {list(shares)}: a part would be empty")
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(order[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
