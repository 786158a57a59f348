"""What a VAE's decoder says about the pixels: four distributions, each normalised over the 256 levels or the cube."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dracones.densities.bits import LEVELS
from dracones.densities.pixelcnn_logistic import discretized_logistic_log_prob


class PixelDistribution(ABC):
    """log p(pixels | the decoder's output), and what the decoder expects to see.

    An implementer sets ``outputs`` (maps a channel) and ``discrete`` (levels, or points of the unit cube), and gives
    `log_prob` and `mean` for parameters [B, C, outputs, H, W].
    """

    outputs: ClassVar[int]
    discrete: ClassVar[bool] = True

    @abstractmethod
    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Nats [B] of ``pixels`` [B, C, H, W]: levels 0..255 if ``discrete``, else points of the unit cube."""

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """Expected image [B, C, H, W] in [0, 1]."""

    @abstractmethod
    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Images [B, C, H, W] in [0, 1] of whole levels."""


class Categorical(PixelDistribution):
    """A free softmax over the 256 levels of every value, as in Xiao et al. (2020)."""

    outputs = LEVELS

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Nats [B]."""
        chosen = parameters.gather(2, pixels.long()[:, :, None])[:, :, 0]
        return (chosen - parameters.logsumexp(2)).sum((1, 2, 3))

    def mean(self, parameters: Tensor) -> Tensor:
        """Expected image."""
        every = torch.arange(LEVELS, device=parameters.device, dtype=parameters.dtype) / (LEVELS - 1)
        return torch.einsum("bclhw,l->bchw", parameters.softmax(2), every)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Draws by the Gumbel trick."""
        noise = _uniform(parameters, generator)
        return (parameters - torch.log(-torch.log(noise))).argmax(2) / (LEVELS - 1)


class Logistic(PixelDistribution):
    """A discretised logistic a value, with its own mean and scale (Kingma et al. 2016, appendix C.3)."""

    outputs = 2

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Nats [B]."""
        mean, log_scale = parameters.unbind(2)
        return discretized_logistic_log_prob(pixels, mean, log_scale - 2).sum((1, 2, 3))

    def mean(self, parameters: Tensor) -> Tensor:
        """Centre of the logistic, kept within the range."""
        return ((parameters[:, :, 0] + 1) / 2).clamp(0, 1)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Draws by the inverse distribution function."""
        mean, log_scale = parameters.unbind(2)
        uniform = _uniform(mean, generator)
        drawn = mean + (log_scale - 2).clamp(min=-7).exp() * (torch.log(uniform) - torch.log1p(-uniform))
        return _whole((drawn + 1) / 2)


class Bernoulli(PixelDistribution):
    """The usual binary cross-entropy, normalised: P(level v) ∝ exp(η v / 255), one logit η a value.

    Cross-entropy of gray values alone is no log-likelihood: its normaliser over the levels is missing. This is the
    continuous Bernoulli (Loaiza-Ganem, Cunningham 2019) on the 256 levels; its normaliser is a geometric series.
    """

    outputs = 1

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Nats [B]."""
        eta = parameters[:, :, 0]
        return (eta * pixels / (LEVELS - 1) - _log_geometric(eta)).sum((1, 2, 3))

    def mean(self, parameters: Tensor) -> Tensor:
        """Expected image."""
        return self._weights(parameters).mul(self._levels(parameters)).sum(2) / (LEVELS - 1)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Draws by the inverse distribution function."""
        cumulative = self._weights(parameters).cumsum(2)
        uniform = _uniform(parameters, generator)
        return (cumulative < uniform).sum(2).clamp(max=LEVELS - 1) / (LEVELS - 1)

    @staticmethod
    def _levels(parameters: Tensor) -> Tensor:
        return torch.arange(LEVELS, device=parameters.device, dtype=parameters.dtype)[:, None, None]

    def _weights(self, parameters: Tensor) -> Tensor:
        return (parameters * self._levels(parameters) / (LEVELS - 1)).softmax(2)


class Gaussian(PixelDistribution):
    """Continuous: a normal a value, of the dequantised image in units of the unit cube."""

    outputs = 2
    discrete = False

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Nats [B] of points of the unit cube (the change to levels is the density's)."""
        mean, log_deviation = self._parameters(parameters)
        standard = (pixels - mean) * torch.exp(-log_deviation)
        return (-0.5 * standard**2 - log_deviation - 0.5 * math.log(2 * math.pi)).sum((1, 2, 3))

    def mean(self, parameters: Tensor) -> Tensor:
        """Centre of the normal, kept within the range."""
        return self._parameters(parameters)[0].clamp(0, 1)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Normal draws, brought to levels."""
        mean, log_deviation = self._parameters(parameters)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
        points = mean + noise * log_deviation.exp()
        return (points * LEVELS).floor().clamp(0, LEVELS - 1) / (LEVELS - 1)

    @staticmethod
    def _parameters(parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_deviation = parameters.unbind(2)
        # Starts at mid-grey with deviation e^-2; never below half a level, where a likelihood has no meaning.
        return mean + 0.5, (log_deviation - 2).clamp(min=math.log(0.5 / LEVELS))


PIXEL_DISTRIBUTIONS: dict[str, type[PixelDistribution]] = {
    "categorical": Categorical,
    "logistic": Logistic,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
}


def _log_geometric(eta: Tensor) -> Tensor:
    """log Σ_{v=0}^{255} exp(η v / 255), stable for any η.

    >>> eta = torch.tensor([-40.0, 0.0, 1e-4, 300.0])
    >>> every = torch.arange(256.0)[:, None] / 255
    >>> torch.allclose(_log_geometric(eta), torch.logsumexp(eta * every, 0))
    True
    """
    # The sum is the same for -|η| up to exp(|η|); there each term is at most one.
    size = eta.abs().clamp(min=1e-3)
    step = size / (LEVELS - 1)
    ratio = torch.log(-torch.expm1(-LEVELS * step)) - torch.log(-torch.expm1(-step))
    near_zero = eta / 2 + eta**2 * ((LEVELS + 1) / (LEVELS - 1) / 24) + math.log(LEVELS)
    return torch.where(eta.abs() < 1e-3, near_zero, ratio + F.relu(eta))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator, device=generator.device).to(like)
    return uniform.clamp(1e-7, 1 - 1e-7)


def _whole(images: Tensor) -> Tensor:
    return (images * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)
