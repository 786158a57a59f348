"""A residual network: RealNVP's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from dracones.flows.conditioners.bottleneck import bottleneck_or_nothing
from dracones.flows.conditioners.layout import with_channels_last


class ResNet(nn.Module):
    """RealNVP's residual network, with BatchNorm inside and weight-normalised convolutions.

    `cat(x, -x)` of the normalised input, ReLU, a 3×3 convolution, `blocks` residual blocks (BN-ReLU-conv-BN-ReLU-conv)
    whose outputs are summed through 1×1 convolutions, then BN-ReLU and a 1×1 convolution of zeros (Dinh et al. 2017,
    section 4.1; Kirichenko et al. 2020: 6 blocks of 64). `double_after_norm` doubles the normalised input: a
    checkerboard zeroes half of it. `bottleneck=l` passes the maps through l numbers after block n/2 and drops the
    summed skips, which would go around it; it needs the maps' `size` (H, W). `batch_norm=False` leaves BatchNorm out.

    In train mode the normalisation uses the batch's statistics: call `eval()` before scoring.

    Example:
        >>> ResNet(3, 6, hidden=8, blocks=2)(torch.ones(2, 3, 5, 7)).shape
        torch.Size([2, 6, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int = 64,
        blocks: int = 6,
        double_after_norm: bool = False,
        batch_norm: bool = True,
        bottleneck: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"ResNet: expected at least 1 block; got {blocks}")
        norm = nn.BatchNorm2d if batch_norm else nn.Identity
        self.double_after_norm = double_after_norm
        self.input_norm = norm(in_channels)
        self.first = _conv(2 * in_channels, hidden, 3)
        self.blocks = nn.ModuleList(_Block(hidden, norm) for _ in range(blocks))
        self.middle = max(blocks // 2, 1)
        self.bottleneck = bottleneck_or_nothing(hidden, bottleneck, size, "ResNet")
        self.skips = nn.ModuleList(_conv(hidden, hidden, 1) for _ in range(blocks + 1 if bottleneck is None else 0))
        self.output_norm = norm(hidden)
        self.last = _conv(hidden, out_channels, 1)
        # Weight normalisation: weight = gain * direction, so a gain of zero is a layer of zeros.
        nn.init.zeros_(self.last.parametrizations.weight.original0)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in, H, W] -> [B, out, H, W]`."""
        return with_channels_last(self._network, x)

    def _network(self, x: Tensor) -> Tensor:
        x = self.input_norm(x)
        x = 2 * x if self.double_after_norm else x
        x = self.first(F.relu(torch.cat([x, -x], 1)))
        total = self.skips[0](x) if len(self.skips) else None
        for index, block in enumerate(self.blocks):
            x = block(x)
            x = self.bottleneck(x) if index + 1 == self.middle else x
            total = None if total is None else total + self.skips[index + 1](x)
        output: Tensor = self.last(F.relu(self.output_norm(x if total is None else total)))
        return output


class _Block(nn.Module):
    def __init__(self, hidden: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.path = nn.Sequential(
            norm(hidden),
            nn.ReLU(),
            _conv(hidden, hidden, 3, bias=False),
            norm(hidden),
            nn.ReLU(),
            _conv(hidden, hidden, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.path(x)
        return x + change


def _conv(in_channels: int, out_channels: int, kernel: int, *, bias: bool = True) -> nn.Module:
    normalised: nn.Module = weight_norm(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias))
    return normalised
