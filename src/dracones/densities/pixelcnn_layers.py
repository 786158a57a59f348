"""Convolutions that see only what came before: the vertical and the horizontal stack of a gated PixelCNN.

The order of pixels is rows from the top, in a row from the left, in a pixel channel by channel. The vertical stack
sees whole rows above; the horizontal one, the pixels to the left and, in the pixel itself, earlier channels. Together
they see every earlier value: no blind spot.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dracones import draws


def channel_groups(features: int, groups: int) -> Tensor:
    """Which image channel each feature belongs to: ``groups`` nearly equal runs, in order.

    >>> channel_groups(7, 3).tolist()
    [0, 0, 0, 1, 1, 2, 2]
    """
    return torch.arange(features) * groups // features


class VerticalConv(nn.Conv2d):
    """k×k convolution that ends at its own row (or, with ``sees_row=False``, at the row above).

    The kernel holds only the rows that may be seen; nothing is multiplied by zero. Output size = input size.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, sees_row: bool) -> None:
        rows = kernel // 2 + int(sees_row)
        super().__init__(inputs, outputs, (rows, kernel))
        self.above = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H, W]."""
        side = self.kernel_size[1] // 2
        padded = F.pad(x, (side, side, self.above, 0))
        return super().forward(padded)[:, :, : x.shape[2]]


class HorizontalConv(nn.Conv2d):
    """1×k convolution that ends at its own pixel, of which a mask says what each output may see.

    Args:
        inputs: input features.
        outputs: output features.
        kernel: odd width k of the full window; the layer holds its k//2 + 1 left taps.
        sees: bool [outputs, inputs], what output o may read of the pixel itself; saved as a buffer.
    """

    own_pixel: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, *, sees: Tensor) -> None:
        super().__init__(inputs, outputs, (1, kernel // 2 + 1))
        mask = torch.ones_like(self.weight)
        mask[:, :, 0, -1] = sees.to(mask.dtype)
        self.register_buffer("own_pixel", mask)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H, W]."""
        padded = F.pad(x, (self.kernel_size[1] - 1, 0))
        return F.conv2d(padded, self.weight * self.own_pixel, self.bias)


def gate(features: Tensor) -> Tensor:
    """``tanh(a) · σ(b)`` of the two halves of the features: the gated activation unit."""
    value, opening = features.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(opening)


class GatedLayer(nn.Module):
    """One gated layer: both stacks, the step from the vertical to the horizontal, residual and skip.

    Args:
        vertical_inputs: features of the vertical input.
        horizontal: group (image channel) of each feature of the horizontal input, [F_in].
        groups: group of each of the layer's own F features.
        skips: group of each skip feature, [S].
        kernel: odd window.
        first: the input is the image itself: a channel sees only earlier channels of its pixel, the vertical stack
            no part of its own row, and there is no residual.
        dropout: share of horizontal features dropped in training.

    Reference:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu (2016), "Conditional Image Generation with
        PixelCNN Decoders", figure 2 and eq. 2.
    """

    def __init__(
        self,
        vertical_inputs: int,
        horizontal: Tensor,
        groups: Tensor,
        skips: Tensor,
        *,
        kernel: int,
        first: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features = len(groups)
        both = torch.cat([groups, groups])
        sees = both[:, None] > horizontal[None] if first else both[:, None] >= horizontal[None]
        self.vertical = VerticalConv(vertical_inputs, 2 * features, kernel, sees_row=not first)
        self.downwards = nn.Conv2d(2 * features, 2 * features, 1)
        self.horizontal = HorizontalConv(len(horizontal), 2 * features, kernel, sees=sees)
        self.residual = HorizontalConv(features, features, 1, sees=groups[:, None] >= groups[None])
        self.skip = HorizontalConv(features, len(skips), 1, sees=skips[:, None] >= groups[None])
        self.dropout = dropout
        self.first = first

    def forward(
        self, vertical: Tensor, horizontal: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(vertical, horizontal, skip)`` for the next layer, all [B, ·, H, W]; drops only if given a generator."""
        above = self.vertical(vertical)
        inner = gate(self.horizontal(horizontal) + self.downwards(above))
        if self.training and self.dropout and generator is not None:
            uniform = draws.uniform(inner.shape, generator).to(inner)
            inner = inner * (uniform >= self.dropout) / (1 - self.dropout)
        outcome = self.residual(inner)
        return gate(above), outcome if self.first else outcome + horizontal, self.skip(inner)


class PixelCNNNetwork(nn.Module):
    """Gated PixelCNN: an image [B, C, H, W] in [-1, 1] to ``outputs_per_channel`` maps a channel, causally.

    With ``groups=C`` the outputs of channel c see the earlier channels of their own pixel; with ``groups=1`` they see
    none of it, which is what a distribution over whole pixels (a `LogisticMixture`) needs.

    Args:
        channels: C of the image.
        groups: 1 or C, see above.
        outputs: output maps in all, a multiple of ``groups``; the first ``outputs / groups`` belong to channel 0.
        features: width of each layer.
        layers: gated layers.
        kernel: odd window of all layers but the first.
        first_kernel: odd window of the first.
        dropout: share dropped in training.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        outputs: int,
        *,
        features: int,
        layers: int,
        kernel: int,
        first_kernel: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        own = channel_groups(features, groups)
        # A constant one beside the image tells the border's padding from mid-grey; every output may see it.
        image = torch.cat([torch.arange(channels) if groups > 1 else torch.zeros(channels).long(), torch.tensor([-1])])
        result = channel_groups(outputs, groups)
        self.layers = nn.ModuleList(
            GatedLayer(
                channels + 1 if first else features,
                image if first else own,
                own,
                own,
                kernel=first_kernel if first else kernel,
                first=first,
                dropout=dropout,
            )
            for first in [True] + [False] * (layers - 1)
        )
        self.mix = HorizontalConv(features, features, 1, sees=own[:, None] >= own[None])
        self.output = HorizontalConv(features, outputs, 1, sees=result[:, None] >= own[None])
        self.reach = first_kernel // 2 + (layers - 1) * (kernel // 2)
        """How many rows above a pixel can still change its distribution."""

    def forward(self, image: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """[B, C, H, W] in [-1, 1] to [B, outputs, H, W]."""
        vertical = horizontal = torch.cat([image, torch.ones_like(image[:, :1])], dim=1)
        skips: list[Tensor] = []
        for layer in self.layers:
            vertical, horizontal, skip = layer(vertical, horizontal, generator=generator)
            skips.append(skip)
        parameters: Tensor = self.output(F.relu(self.mix(F.relu(torch.stack(skips).sum(0)))))
        return parameters
