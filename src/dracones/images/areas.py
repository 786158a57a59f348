"""A defect of an image, and how much of it has to be marked to have found it."""

from typing import NamedTuple

import numpy as np


class DefectArea(NamedTuple):
    """One defect of an image: its pixels `[H, W]` bool, and how many of them it is enough to mark."""

    pixels: np.ndarray
    saturation: float
