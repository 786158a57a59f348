"""Base distributions: what a flow's latents are compared with."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Base(nn.Module, ABC):
    """A distribution over latents of any shape."""

    @abstractmethod
    def elementwise_log_prob(self, z: Tensor) -> Tensor:
        """Each entry's share of the log-density, nats, same shape as z."""

    @abstractmethod
    def sample(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw of the shape, dtype and device of `like`."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, `[B]`."""
        return self.elementwise_log_prob(z).flatten(1).sum(1)


class StandardNormal(Base):
    """Independent standard normals: `log p(z) = -|z|²/2 - D/2 log 2π`.

    Example:
        >>> StandardNormal().log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    def elementwise_log_prob(self, z: Tensor) -> Tensor:
        """Each entry's share, nats."""
        return -0.5 * (z.square() + math.log(2 * math.pi))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density in nats, `[B]`."""
        flat = z.flatten(1)
        return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2 * math.pi))

    def sample(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise; drawn on the generator's own device, then moved."""
        device = like.device if generator is None else generator.device
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
