"""Last layers that start at zero, so that a new coupling starts as the identity."""

from typing import Literal

import torch
from torch import Tensor, nn

PaddingMode = Literal["zeros", "reflect"]


class ZeroConv2d(nn.Conv2d):
    """A convolution whose weights and bias start at zero; padding (by zeros, or `padding_mode`) keeps the size.

    With `log_gain` the output is multiplied by `exp(3 gain)`, a learnt gain per channel, as in Glow's code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        log_gain: bool = False,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, padding_mode=padding_mode)
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.zeros(out_channels, 1, 1)) if log_gain else None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that nn.Conv2d gives it
        """Convolve, then apply the gain."""
        output = super().forward(input)
        return output if self.gain is None else output * torch.exp(3 * self.gain)


class ZeroLinear(nn.Linear):
    """A linear layer whose weights and bias start at zero."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
