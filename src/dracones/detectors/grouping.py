"""Which calibration group each image of a collection is of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.calibration import Groups
from dracones.images import ImageCollection
from dracones.images.keys import How, keys_of

_AT_ONCE = 10_000


class Grouping(NamedTuple):
    """Which group each image is of, for the images from place ``start`` of a collection on.

    Attributes:
        names: of the groups.
        start: the first image that is known.
        places: of each image's group among the names.
    """

    names: tuple[str, ...]
    start: int
    places: NDArray[np.int64]

    def of(self, images: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The place among the names of each of these images' groups."""
        found: NDArray[np.int64] = self.places[np.asarray(images) - self.start]
        return found


def groups_for_calibration(images: ImageCollection, how: How) -> list[str]:
    """The group of each image.

    Raises:
        ValueError: images of which no group is known, by name.
    """
    names = images.names
    keys = keys_of(names, how)
    lacking = [name for name, key in zip(names, keys, strict=True) if key is None]
    if lacking:
        raise ValueError(
            f"groups: {len(lacking)} of {len(names)} images of {images.name_of_source} have no group, such as "
            f"{lacking[0]}; each calibration image needs one: leave them out, or name the group of each"
        )
    return [key for key in keys if key is not None]


def grouping_of(groups: Groups | None, images: ImageCollection, how: How | None, wanted: range) -> Grouping | None:
    """The grouping of images that are to be scored; ``None`` where the calibration has no groups.

    Args:
        groups: the calibration.
        images: to be scored.
        how: see `keys_of`; as at the calibration if not given.
        wanted: which of the images.

    Raises:
        ValueError: groups named where there are none, not named where they must be, or not calibrated.
    """
    if groups is None:
        if how is not None:
            raise ValueError(
                "groups: this detector has one calibration for all images; calibrate(groups=...) makes them"
            )
        return None
    if how is None:
        how = groups.how
    if how is None:
        raise ValueError(
            f"groups: the calibration groups ({', '.join(groups.names[:5])}) were given by a table or a list; say "
            "which each image is of (groups=..., or --group TABLE:COLUMN)"
        )
    if not isinstance(how, str | Mapping) and len(how) != len(images):
        raise ValueError(f"groups: expected one for each of {len(images)} images, got {len(how)}")
    places = np.empty(len(wanted), dtype=np.int64)
    # Piece by piece: the names of a million files are not all held as text.
    for first in range(0, len(wanted), _AT_ONCE):
        piece = wanted[first : first + _AT_ONCE]
        names = [images.name(i) for i in piece]
        own = how if isinstance(how, str | Mapping) else how[piece.start : piece.stop]
        places[first : first + len(piece)] = groups.places(keys_of(names, own), names)
    return Grouping(groups.names, wanted.start, places)


def rule_of(how: How) -> str | None:
    """What is kept of a way to group: it can be used on other images if it reads their names."""
    return how if isinstance(how, str) else None


def counts_of(keys: Sequence[str]) -> Mapping[str, int]:
    """How many images each group has."""
    names, counts = np.unique(np.asarray(keys, dtype=str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))
