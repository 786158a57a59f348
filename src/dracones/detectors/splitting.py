"""Disjoint parts of the normal images: what trains, what stops training and fits rules, what calibrates."""

import math
from typing import cast

from dracones.images import ImageCollection
from dracones.methods import Parts


def split(images: ImageCollection, validation_share: float, calibration_share: float, seed: int) -> Parts:
    """Cut a collection in three at random, the same way for the same seed and length.

    Raises:
        ValueError: shares that leave nothing to train on.
    """
    train_share = 1.0 - validation_share - calibration_share
    count = len(images)
    if train_share <= 0 or round(train_share * count) < 1:
        raise ValueError(
            f"{count} images with validation_share={validation_share} and calibration_share={calibration_share} leave "
            "none to train on; give more images or smaller shares"
        )
    shares = (train_share, validation_share, calibration_share)
    needed = math.ceil(1 / min(share for share in shares if share > 0))
    if count < needed:
        raise ValueError(
            f"{count} normal images are too few to keep validation_share={validation_share} and calibration_share="
            f"{calibration_share} of them apart; give at least {needed}, or set a share to 0 and calibrate with others"
        )
    found = iter(cast("list[ImageCollection]", images.split([share for share in shares if share > 0], seed=seed)))
    train, validation, calibration = (next(found) if share > 0 else images.subset([]) for share in shares)
    return Parts(train, validation, calibration)
