"""Dequantisation: from the 256 levels of an image to the continuum."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from dracones.flows.bijection import Bijection

# Between 128 and 256 float32 has steps of 2^-16: noise this far below 1 cannot round a level up to the next.
_BELOW_ONE = 1 - 2.0**-15


class Dequantize(Bijection):
    """From 8-bit images in [0, 1] to the continuum: `z = ((levels - 1) x + u) / levels` with u uniform in [0, 1).

    log|det| = D log((levels - 1) / levels), the slope of z in x; the probability of the image itself, of levels
    0, ..., 255, is the density of z divided by levels^D. `encode` uses one noise image, drawn from `seed` and kept as a
    buffer, so that a score depends on nothing but the image; `draw` takes fresh noise from a generator (training).
    `decode` returns the level.

    Example:
        >>> layer = Dequantize((1, 1, 3))
        >>> x = torch.tensor([[[[0., 7., 255.]]]]) / 255
        >>> layer.decode(layer.encode(x)[0])[0] * 255
        tensor([[[[  0.,   7., 255.]]]])
    """

    inexact = True  # decode returns the level, not the noise: constant-memory training refuses it

    noise: Tensor

    def __init__(self, shape: tuple[int, ...], *, levels: int = 256, seed: int = 0) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"Dequantize: expected at least 2 levels; got {levels}")
        self.levels = levels
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.register_buffer("noise", (noise * _BELOW_ONE).float())

    @property
    @override
    def x_pattern(self) -> tuple[int, ...]:
        return tuple(self.noise.shape)

    def draw(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """As `encode`, with fresh noise from the generator."""
        self._check("draw", x, self.x_pattern, None)
        device = x.device if generator is None else generator.device
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
        return self._blur(x, noise * _BELOW_ONE), self._log_det(x)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._blur(x, self.noise.to(x.dtype)), self._log_det(x)

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        level = torch.floor(z * self.levels).clamp(0, self.levels - 1)
        return level / (self.levels - 1), self._log_det(z)

    def _blur(self, x: Tensor, noise: Tensor) -> Tensor:
        # Values are snapped to their level first, so that float32's 7/255 cannot land on the level below.
        level = torch.round(x.detach() * (self.levels - 1)) - x.detach() * (self.levels - 1)
        return ((self.levels - 1) * x + level + noise) / self.levels

    def _log_det(self, x: Tensor) -> Tensor:
        slope = math.log((self.levels - 1) / self.levels)
        return x.new_full((x.shape[0],), slope * x.shape[1:].numel())

    @override
    def extra_repr(self) -> str:
        return f"{'x'.join(map(str, self.noise.shape))}, levels={self.levels}"
