"""A highway network: Nalisnick's Glow."""

from torch import Tensor, nn
from torch.nn import functional as F

from dracones.flows.conditioners.bottleneck import bottleneck_or_nothing
from dracones.flows.conditioners.layout import with_channels_last
from dracones.flows.conditioners.zeros import ZeroConv2d


class Highway(nn.Module):
    """Convolution, then `layers` highway layers `gate·h + (1 - gate)·x`, then a 1×1 convolution of zeros.

    `h = relu(conv3x3(x))` and `gate = sigmoid(conv3x3(x))`; weights start from N(0, 0.05²). The Glow of Nalisnick et
    al. 2019 has 3 layers of 200 or 400 channels; the code of Kirichenko et al. 2020 leaves out the two ReLUs, after the
    first convolution and of `h`. `bottleneck=l` passes the maps in the
    middle through l numbers and needs their `size` (H, W).

    Example:
        >>> import torch
        >>> Highway(2, 4, hidden=8)(torch.ones(1, 2, 5, 7)).shape
        torch.Size([1, 4, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden: int = 200,
        layers: int = 3,
        bottleneck: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"Highway: expected at least 1 layer; got {layers}")
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        # The candidate and its gate in one convolution of twice the channels.
        self.layers = nn.ModuleList(nn.Conv2d(hidden, 2 * hidden, 3, padding=1) for _ in range(layers))
        self.middle = (layers + 1) // 2
        self.bottleneck = bottleneck_or_nothing(hidden, bottleneck, size, "Highway")
        self.last = ZeroConv2d(hidden, out_channels, 1, log_gain=True)
        for conv in (self.first, *self.layers):
            nn.init.normal_(conv.weight, std=0.05)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in, H, W] -> [B, out, H, W]`."""
        return with_channels_last(self._network, x)

    def _network(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for index, layer in enumerate(self.layers):
            candidate, gate = layer(x).chunk(2, 1)
            x = x.lerp(F.relu(candidate), gate.sigmoid())
            x = self.bottleneck(x) if index + 1 == self.middle else x
        output: Tensor = self.last(x)
        return output
