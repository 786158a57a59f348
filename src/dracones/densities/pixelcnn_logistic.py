"""Discretised logistic distributions over the 256 levels of an 8-bit image, alone and in mixtures."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dracones.densities.bits import LEVELS

MIN_LOG_SCALE = -7.0
"""Smallest log scale, in units of the [-1, 1] pixel range: about a ninth of one level; PixelCNN++ uses the same."""


def centred(levels: Tensor) -> Tensor:
    """Levels 0..255 brought to [-1, 1], the range in which means and scales are expressed."""
    return levels * (2 / (LEVELS - 1)) - 1


def discretized_logistic_log_prob(levels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability, in nats, that a logistic variable falls into the bin of a level.

    ``log[σ((x + 1/255 − μ)/s) − σ((x − 1/255 − μ)/s)]`` with ``x = 2·level/255 − 1``; the bins of levels 0 and 255
    reach to −∞ and +∞, so that the 256 probabilities sum to one. The difference is evaluated as
    ``σ(a) − σ(b) = σ(a) σ(−b) (1 − exp(b − a))``, which loses no digits however far the level lies from the mean.

    Args:
        levels: 0..255, any shape.
        mean: in [-1, 1] units, broadcast against ``levels``.
        log_scale: log s in [-1, 1] units, broadcast; values below `MIN_LOG_SCALE` are raised to it.

    Reference:
        Salimans, Karpathy, Chen, Kingma (2017), "PixelCNN++", eq. 2.

    Example:
        >>> levels = torch.arange(256.0)
        >>> p = discretized_logistic_log_prob(levels, torch.tensor(0.3), torch.tensor(-2.0)).exp()
        >>> round(float(p.sum()), 5)
        1.0
    """
    log_scale = log_scale.clamp(min=MIN_LOG_SCALE)
    inverse_scale = torch.exp(-log_scale)
    distance = centred(levels) - mean
    half_bin = 1 / (LEVELS - 1)
    upper = inverse_scale * (distance + half_bin)
    lower = inverse_scale * (distance - half_bin)
    width = torch.log(-torch.expm1(-2 * half_bin * inverse_scale))
    inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + width
    darkest, brightest = levels < 0.5, levels > LEVELS - 1.5
    return torch.where(darkest, F.logsigmoid(upper), torch.where(brightest, F.logsigmoid(-lower), inner))


class LogisticMixture(NamedTuple):
    """Parameters of a mixture of K discretised logistics for every pixel; channels depend on those before them.

    Within a pixel, component k moves the mean of channel c by the *values* of the earlier channels:
    ``μ'_{c,k} = μ_{c,k} + Σ_{e<c} a_{c,e,k} x_e``, and one component serves all channels of the pixel.

    Reference:
        Salimans et al. (2017), "PixelCNN++", section 2.2, eq. 3, here for any number of channels.

    Example:
        >>> mixture = LogisticMixture.from_output(torch.zeros(1, LogisticMixture.outputs(1, 5), 4, 4), channels=1)
        >>> mixture.log_prob(torch.full((1, 1, 4, 4), 128.0)).shape
        torch.Size([1, 4, 4])
    """

    logits: Tensor
    """[B, K, H, W]: unnormalised log weights."""
    mean: Tensor
    """[B, C, K, H, W], in [-1, 1] units."""
    log_scale: Tensor
    """[B, C, K, H, W]."""
    coupling: Tensor
    """[B, C, C, K, H, W]: how far channel e (second) moves the mean of channel c (first); zero unless e < c."""

    @staticmethod
    def outputs(channels: int, components: int) -> int:
        """Output maps a network needs for such a mixture."""
        return components * (1 + 2 * channels + channels * (channels - 1) // 2)

    @staticmethod
    def starting_bias(channels: int, components: int) -> Tensor:
        """Outputs [`outputs`] of K equally weighted components side by side that cover the range of levels.

        >>> LogisticMixture.starting_bias(1, 4).tolist()[4:8]
        [-0.75, -0.25, 0.25, 0.75]
        """
        bias = torch.zeros(LogisticMixture.outputs(channels, 1), components)
        bias[1 : 1 + channels] = (torch.arange(components) + 0.5) * (2 / components) - 1
        bias[1 + channels : 1 + 2 * channels] = -math.log(2 * components)
        return bias.flatten()

    @classmethod
    def from_output(cls, output: Tensor, *, channels: int) -> "LogisticMixture":
        """Cut a network's output [B, `outputs`, H, W] into the parameters."""
        batch, maps, height, width = output.shape
        per_component = cls.outputs(channels, 1)
        components = maps // per_component
        parts = output.reshape(batch, per_component, components, height, width)
        logits = parts[:, 0]
        mean = parts[:, 1 : 1 + channels]
        log_scale = parts[:, 1 + channels : 1 + 2 * channels]
        moves = iter(torch.tanh(parts[:, 1 + 2 * channels :]).unbind(1))
        still = torch.zeros_like(logits)
        coupling = torch.stack(
            [
                torch.stack([next(moves) if earlier < later else still for earlier in range(channels)], dim=1)
                for later in range(channels)
            ],
            dim=1,
        )
        return cls(logits, mean, log_scale, coupling)

    def component_log_prob(self, levels: Tensor) -> Tensor:
        """Log-probability of each channel's level under each component: [B, C, K, H, W], nats, for [B, C, H, W]."""
        mean = self.mean + torch.einsum("bcekhw,behw->bckhw", self.coupling, centred(levels))
        return discretized_logistic_log_prob(levels[:, :, None], mean, self.log_scale)

    def log_prob(self, levels: Tensor) -> Tensor:
        """Log-probability of each pixel, all its channels together: [B, H, W], nats."""
        joint = F.log_softmax(self.logits, dim=1) + self.component_log_prob(levels).sum(1)
        return torch.logsumexp(joint, dim=1)

    def conditional_log_probs(self, levels: Tensor, channel: int) -> Tensor:
        """Log-probability of all 256 levels of one channel given the pixel's earlier channels: [B, 256, H, W]."""
        weights, mean, log_scale = self._conditional(levels, channel)
        every = torch.arange(LEVELS, device=levels.device, dtype=levels.dtype)[:, None, None]
        each = discretized_logistic_log_prob(every, mean[:, :, None], log_scale[:, :, None])
        return torch.logsumexp(weights[:, :, None] + each, dim=1)

    def conditional_probs(self, levels: Tensor, channel: int) -> Tensor:
        """The same as probabilities, from differences of the mixture's distribution function: a quarter of the time.

        Below 1e-7 they are rounding; good for expectations, where such levels weigh nothing.
        """
        weights, mean, log_scale = self._conditional(levels, channel)
        edges = (torch.arange(LEVELS - 1, device=levels.device, dtype=levels.dtype) * 2 + 1) / (LEVELS - 1) - 1
        inverse_scale = torch.exp(-log_scale.clamp(min=MIN_LOG_SCALE))
        scaled = (edges[:, None, None] - mean[:, :, None]) * inverse_scale[:, :, None]
        below = torch.einsum("bk...,bkl...->bl...", weights.exp(), torch.sigmoid(scaled))
        ends = torch.zeros_like(below[:, :1])
        edges_below = torch.cat([ends, below, ends + 1], dim=1)
        return (edges_below[:, 1:] - edges_below[:, :-1]).clamp(min=0)

    def _conditional(self, levels: Tensor, channel: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and log scales [B, K, H, W] of one channel's mixture given the earlier channels."""
        weights = F.log_softmax(self.logits, dim=1)
        if channel:
            weights = weights + self.component_log_prob(levels)[:, :channel].sum(1)
            weights = F.log_softmax(weights, dim=1)
        moved = torch.einsum("bekhw,behw->bkhw", self.coupling[:, channel], centred(levels))
        return weights, self.mean[:, channel] + moved, self.log_scale[:, channel]

    def sample(self, *, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Levels drawn for every pixel: [B, C, H, W]; a temperature below 1 draws likelier ones."""
        uniform = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
        chosen = (self.logits / temperature + gumbel).argmax(1)[:, None]
        channels: list[Tensor] = []
        for channel in range(self.mean.shape[1]):
            mean = self.mean[:, channel].gather(1, chosen)[:, 0]
            for earlier, value in enumerate(channels):
                mean = mean + self.coupling[:, channel, earlier].gather(1, chosen)[:, 0] * value
            scale = self.log_scale[:, channel].clamp(min=MIN_LOG_SCALE).gather(1, chosen)[:, 0].exp() * temperature
            uniform = torch.rand(mean.shape, generator=generator, device=mean.device).clamp(1e-7, 1 - 1e-7)
            drawn = mean + scale * (torch.log(uniform) - torch.log1p(-uniform))
            channels.append(centred(((drawn + 1) * ((LEVELS - 1) / 2)).round().clamp(0, LEVELS - 1)))
        return ((torch.stack(channels, 1) + 1) * ((LEVELS - 1) / 2)).round()
