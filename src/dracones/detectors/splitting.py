"""Disjoint parts of the normal images: what trains, what stops training and fits rules, what calibrates.

Images that are copies of one another, or that belong together (``group_by``), never lie on two sides: a calibration
image that was learnt from scores lower than a new one, and the promised false-alarm rate would be broken.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.calibration.met import UNREADABLE, Digests
from dracones.images import ImageCollection
from dracones.images.keys import keys_of
from dracones.methods import Parts

Places = NDArray[np.intp]


def check_count(count: int, validation_share: float, calibration_share: float, what: str = "normal images") -> None:
    """Refuse, before anything is read, a number of images that the shares cannot be cut from.

    Raises:
        ValueError: shares that leave nothing to train on, or a part without an image.
    """
    train_share = 1.0 - validation_share - calibration_share
    if train_share <= 0 or round(train_share * count) < 1:
        raise ValueError(
            f"{count} {what} with validation_share={validation_share} and calibration_share={calibration_share} leave "
            "none to train on; give more images or smaller shares"
        )
    needed = math.ceil(1 / min(share for share in (train_share, validation_share, calibration_share) if share > 0))
    if count < needed:
        raise ValueError(
            f"{count} {what} are too few to keep validation_share={validation_share} and calibration_share="
            f"{calibration_share} of them apart; give at least {needed}, or set a share to 0 and calibrate with others"
        )


class Split(NamedTuple):
    """Places of each part's images, rising; the three are disjoint and together everything."""

    train: Places
    validation: Places
    calibration: Places

    def parts(self, images: ImageCollection) -> Parts:
        """The parts as collections."""
        return Parts(*[images.subset(places) for places in self])


def split(images: ImageCollection, validation_share: float, calibration_share: float, seed: int) -> Parts:
    """Cut a collection in three at random, the same way for the same seed and length; see `cut`."""
    return cut(np.arange(len(images)), validation_share, calibration_share, seed).parts(images)


def cut(groups: Places, validation_share: float, calibration_share: float, seed: int) -> Split:
    """Cut images in three at random, the same way for the same seed, length and groups.

    Shares are of images, cut where one group ends and the next begins; without groups they are exact.

    Args:
        groups: the group of each image, see `groups_of`.
        validation_share: see `MethodConfig`.
        calibration_share: see `MethodConfig`.
        seed: of the order.

    Raises:
        ValueError: shares that leave nothing to train on, or a part without an image.
    """
    check_count(len(groups), validation_share, calibration_share)
    distinct = int(groups.max()) + 1
    if distinct < len(groups):
        what = f"groups of images that belong together (of {len(groups)} images)"
        check_count(distinct, validation_share, calibration_share, what)
    shares = [1.0 - validation_share - calibration_share, validation_share, calibration_share]
    cuts = iter(_cut(groups, [share for share in shares if share > 0], seed))
    nobody = np.empty(0, dtype=np.intp)
    return Split(*[next(cuts) if share > 0 else nobody for share in shares])


def groups_of(names: Sequence[str], found: Digests | None, group_by: str | None) -> Places:
    """The group of each image, numbered from 0: copies together, and what ``group_by`` says belongs together.

    >>> groups_of(["a/1.png", "a/2.png", "b/1.png"], None, "folder").tolist()
    [0, 0, 1]
    >>> groups_of(["cam1_007.png", "cam2_007.png", "cam1_008.png"], None, r"_(\\d+)").tolist()
    [0, 0, 1]

    Raises:
        ValueError: ``group_by`` puts all images in one group, or finds nothing in any name.
    """
    count = len(names)
    keys: list[list[object]] = []
    if group_by is not None:
        keys.append(_named_groups(names, group_by))
    if found is not None:
        keys.append([i if digest == UNREADABLE else int(digest) for i, digest in enumerate(found)])
    if not keys:
        return np.arange(count)
    # Two keys tie images together in chains: a copy in another folder joins the two folders.
    leader = list(range(count))

    def root(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for key in keys:
        first: dict[object, int] = {}
        for i, value in enumerate(key):
            leader[root(i)] = root(first.setdefault(value, i))
    _, numbers = np.unique([root(i) for i in range(count)], return_inverse=True)
    return numbers


def _named_groups(names: Sequence[str], group_by: str) -> list[object]:
    # An image whose name says nothing is a group of its own.
    keys: list[object] = [i if key is None else key for i, key in enumerate(keys_of(names, group_by, "group_by"))]
    if len(set(keys)) == 1:
        raise ValueError(
            f"group_by={group_by!r} puts all {len(names)} images in one group, {keys[0]!r}, so none can be kept aside; "
            "group by something that differs, or set the shares to 0 and calibrate with others"
        )
    return keys


def _cut(groups: Places, shares: Sequence[float], seed: int) -> list[Places]:
    """Places of each part, rising; a random order of groups, cut at the group ends nearest to the shares."""
    order = np.random.default_rng(seed).permutation(len(groups))
    # A group stands where its first image does in the order of images, so that without groups this is that order.
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    turn = np.argsort(first)
    ends_of_groups = np.cumsum(sizes[turn])
    rank = np.empty(len(turn), dtype=np.intp)
    rank[turn] = np.arange(len(turn))
    place = rank[groups]
    cuts = _nearest_ends(ends_of_groups, np.rint(np.cumsum(shares) * len(groups)))
    return [np.flatnonzero((place >= start) & (place < end)) for start, end in zip([0, *cuts], cuts, strict=False)]


def _nearest_ends(ends: Places, wanted: NDArray[np.float64]) -> list[int]:
    """How many groups lie before each cut: nearest to the wanted images, with at least one group a part."""
    cuts: list[int] = []
    for part, goal in enumerate(wanted):
        nearest = int(np.argmin(np.abs(ends - goal))) + 1
        lowest, highest = (cuts[-1] if cuts else 0) + 1, len(ends) - (len(wanted) - 1 - part)
        cuts.append(min(max(nearest, lowest), highest))
    cuts[-1] = len(ends)
    return cuts
