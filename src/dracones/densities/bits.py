"""Bits per dimension, and the step from 256 pixel levels to a continuous density: the only place for either.

An image with levels v in {0, ..., 255} is dequantised to y = (v + u) / 256 with u in [0, 1), so that a
density q of y on the unit cube gives the 8-bit image (in expectation over u: a lower bound on) the
log-probability

    log P(v) = log q(y) - D log 256,

where D counts the pixels of all channels. With 255 in place of 256, or without the last term, every figure in
bits per dimension is wrong by a constant. A uniform q gives exactly 8 bits.

Reference: Theis, van den Oord and Bethge 2016, "A note on the evaluation of generative models", section 3.1.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from dracones.draws import uniform

LEVELS = 256
"""Levels of one channel of one pixel."""

_T = TypeVar("_T", float, Tensor)


def bits_per_dim(log_prob: _T, dimensions: int) -> _T:
    """Bits that an image costs per dimension (pixel times channel): -log P / (D log 2); smaller is likelier.

    `log_prob` is the log-probability of the 8-bit image in nats, as `Density.log_prob` gives it.

    >>> bits_per_dim(-784 * math.log(256), 784)
    8.0
    """
    if dimensions <= 0:
        raise ValueError(f"bits_per_dim: dimensions must be positive, got {dimensions}")
    return -log_prob / (dimensions * math.log(2))


def to_levels(images: Tensor) -> Tensor:
    """The 256 pixel levels (float tensor of whole numbers) of images in [0, 1].

    Raises `ValueError` for values outside [0, 1] and for NaN: both would give a silent, wrong likelihood.

    >>> to_levels(torch.tensor([0.0, 0.5, 1.0]))
    tensor([  0., 128., 255.])
    """
    check_unit(images)
    return rounded(images)


def check_unit(images: Tensor) -> None:
    """Raise `TypeError` or `ValueError` for what are no images in [0, 1]."""
    if not images.is_floating_point():
        raise TypeError(f"images: expected floats in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    if images.numel():
        low, high = images.detach().aminmax()
        if not (low >= 0 and high <= 1):  # also false for NaN
            raise ValueError(
                f"images: expected values in [0, 1], got {float(low):.4g} to {float(high):.4g}"
                " (nan: not a number); divide 8-bit images by 255 and do not normalise them"
            )


def rounded(images: Tensor) -> Tensor:
    """`to_levels` of what is known to lie in [0, 1]."""
    return torch.round(images * (LEVELS - 1))


class Dequantisation(nn.Module):
    """From 8-bit images to points of the open unit cube, y = (v + u) / 256.

    Without a generator the noise u is one draw kept as a buffer, the same for every image, so that a score
    depends on nothing but the image: not on its batch, the device or the process. Training passes a
    generator.

    >>> dequantise = Dequantisation((1, 2, 2))
    >>> points, log_det = dequantise(torch.ones(1, 1, 2, 2))
    >>> bool((points > 255 / 256).all() and (points < 1).all()), round(log_det, 3)
    (True, -22.181)
    """

    noise: Tensor

    def __init__(self, image_shape: tuple[int, ...], *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("noise", torch.rand(image_shape, generator=generator))

    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, float]:
        """Points in (0, 1) and the log-determinant of v + u -> y, -D log 256 nats for every image."""
        levels = rounded(images)
        if generator is None:
            noise = self.noise.to(levels)
        else:
            noise = uniform(images.shape, generator).to(levels)
        # float32 rounds 255.9999999 up to 256: keep the points inside the open cube, where a logit is finite
        noise = noise.clamp(1e-4, 1 - 1e-4)
        return (levels + noise) / LEVELS, -math.log(LEVELS) * self.noise.numel()


def from_unit(points: Tensor) -> Tensor:
    """8-bit images in [0, 1] of points of the unit cube: the inverse of the dequantisation, any noise.

    >>> from_unit(torch.tensor([0.0, 0.9999])).tolist()
    [0.0, 1.0]
    """
    return (points * LEVELS).floor().clamp(0, LEVELS - 1) / (LEVELS - 1)
