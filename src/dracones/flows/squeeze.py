"""Squeeze: trade resolution for channels."""

from torch import Tensor
from typing_extensions import override

from dracones.flows.bijection import Bijection, Pattern


class Squeeze(Bijection):
    """`[B, C, H, W] -> [B, C·f², H/f, W/f]`, each f×f block becoming channels; log|det| = 0 (Dinh et al. 2017, 3.6).

    Channel `c·f² + f·i + j` holds what lay at row i and column j of the blocks of channel c.

    Example:
        >>> import torch
        >>> Squeeze().encode(torch.arange(4.).view(1, 1, 2, 2))[0].flatten()
        tensor([0., 1., 2., 3.])
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"Squeeze: expected a factor of at least 1; got {factor}")
        self.factor = factor

    @property
    @override
    def x_pattern(self) -> Pattern:
        return (None, None, None)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.to_latent_layout(x), x.new_zeros(x.shape[0])

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.to_image_layout(z), z.new_zeros(z.shape[0])

    def to_latent_layout(self, x: Tensor) -> Tensor:
        """Blocks to channels. Raises ValueError if the factor does not divide height and width."""
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"Squeeze.encode: expected height and width divisible by {self.factor}; got {list(x.shape[2:])}"
            )
        # Not F.pixel_unshuffle, which refuses an empty batch.
        count, channels, height, width = x.shape
        f, h, w = self.factor, height // self.factor, width // self.factor
        return x.reshape(count, channels, h, f, w, f).permute(0, 1, 3, 5, 2, 4).reshape(count, channels * f * f, h, w)

    def to_image_layout(self, z: Tensor, *, unmix: bool = False) -> Tensor:  # noqa: ARG002
        """Channels to blocks. Raises ValueError if the channels are not a multiple of the factor's square."""
        if z.shape[1] % self.factor**2:
            raise ValueError(
                f"Squeeze.decode: expected channels divisible by {self.factor**2}; got {z.shape[1]} in {list(z.shape)}"
            )
        count, channels, h, w = z.shape
        f, c = self.factor, channels // self.factor**2
        return z.reshape(count, c, f, f, h, w).permute(0, 1, 4, 2, 5, 3).reshape(count, c, h * f, w * f)

    @override
    def extra_repr(self) -> str:
        return f"factor={self.factor}"
