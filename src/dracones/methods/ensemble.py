"""The answer of several methods over one pass of the backbone, on the scale of normal images."""

from typing import Literal

WitnessName = Literal["whole", "place", "patch", "flow"]

_POOLING = ("mean", "max", "std")
_CHUNK = 32
