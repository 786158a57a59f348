"""Where a feature sits in the image, told to a network as sines and cosines of its row and column."""

import math

import torch
from torch import Tensor, nn

__all__ = ["SinusoidalPosition", "sinusoidal_position"]


def sinusoidal_position(dims: int, height: int, width: int) -> Tensor:
    r"""Positional encoding `[dims, height, width]`, half of it for the column, half for the row.

    With :math:`\omega_k = 10000^{-2k / (dims / 2)}`, channel 2k of the first half is :math:`\sin(\omega_k x)` and
    channel 2k+1 is :math:`\cos(\omega_k x)`; the second half is the same of y. Positions are counted in cells.

    Raises:
        ValueError: `dims` is no multiple of 4, or an empty map.

    Reference:
        Vaswani et al. 2017, section 3.5, per axis; the condition of CFLOW-AD (Gudovskiy et al. 2022, section 4).

    Example:
        >>> sinusoidal_position(4, 1, 2)[:, 0]
        tensor([[0.0000, 0.8415],
                [1.0000, 0.5403],
                [0.0000, 0.0000],
                [1.0000, 1.0000]])
    """
    if dims <= 0 or dims % 4:
        raise ValueError(f"positional dims must be a positive multiple of 4 (sine, cosine; row, column); got {dims}")
    if height < 1 or width < 1:
        raise ValueError(f"positional encoding of an empty map: {height}x{width}")
    half = dims // 2
    frequency = torch.exp(torch.arange(0, half, 2, dtype=torch.float64) * (-math.log(10000.0) / half))

    def axis(length: int) -> Tensor:
        angle = torch.arange(length, dtype=torch.float64) * frequency[:, None]
        return torch.stack((angle.sin(), angle.cos()), dim=1).flatten(0, 1)

    columns = axis(width)[:, None, :].expand(half, height, width)
    rows = axis(height)[:, :, None].expand(half, height, width)
    return torch.cat((columns, rows)).float()


class SinusoidalPosition(nn.Module):
    """`sinusoidal_position` kept as a buffer, made anew when a map of another size comes.

    The buffer follows the module's device and is not saved: it follows from `dims` and the map's size.

    Example:
        >>> SinusoidalPosition(8)(2, 3).shape
        torch.Size([8, 2, 3])
    """

    encoding: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        sinusoidal_position(dims, 1, 1)  # the check
        self.dims = dims
        self.register_buffer("encoding", torch.empty(dims, 0, 0), persistent=False)

    def forward(self, height: int, width: int) -> Tensor:
        """Encoding `[dims, height, width]` on the module's device."""
        if self.encoding.shape[1:] != (height, width):
            self.encoding = sinusoidal_position(self.dims, height, width).to(self.encoding)
        return self.encoding
