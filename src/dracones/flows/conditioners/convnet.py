"""A small convolutional network: Glow's and FastFlow's."""

from collections.abc import Sequence

from torch import Tensor, nn

from dracones.flows.conditioners.bottleneck import bottleneck_or_nothing
from dracones.flows.conditioners.layout import with_channels_last
from dracones.flows.conditioners.zeros import PaddingMode, ZeroConv2d


class ConvNet(nn.Module):
    """Convolutions with ReLU between, the last one of zeros; padding (zeros, or `padding_mode`) keeps the size.

    `kernels=(3, 1, 3)` is Glow's (Kingma and Dhariwal 2018, section 5), `(3, 3)` and `(1, 1)` FastFlow's (Yu et al.
    2021). `bottleneck=l` passes the maps after the first half of the layers through l numbers and needs their `size`
    (H, W).

    Example:
        >>> import torch
        >>> ConvNet(2, 4, hidden=8)(torch.ones(1, 2, 5, 7)).shape
        torch.Size([1, 4, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int = 64,
        kernels: Sequence[int] = (3, 1, 3),
        bottleneck: int | None = None,
        size: tuple[int, int] | None = None,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        if len(kernels) < 2 or any(k % 2 == 0 or k < 1 for k in kernels):
            raise ValueError(f"ConvNet: expected at least two odd kernel sizes; got {tuple(kernels)}")
        modules: list[nn.Module] = []
        for index, kernel in enumerate(kernels[:-1]):
            width = hidden if index else in_channels
            modules.append(nn.Conv2d(width, hidden, kernel, padding=kernel // 2, padding_mode=padding_mode))
            modules.append(nn.ReLU(inplace=True))
            if bottleneck is not None and index == (len(kernels) - 2) // 2:
                modules.append(bottleneck_or_nothing(hidden, bottleneck, size, "ConvNet"))
        self.network = nn.Sequential(*modules, ZeroConv2d(hidden, out_channels, kernels[-1], padding_mode=padding_mode))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in, H, W] -> [B, out, H, W]`."""
        return with_channels_last(self.network, x)
