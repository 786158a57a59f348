"""A network with all that makes a run hard to repeat: noise, dropout, running means, self-initialisation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


class SelfScaling(nn.Module):
    """Takes its scale from its first batch, as ActNorm does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(width))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.initialised:
            with torch.no_grad():
                self.log_scale.copy_(-x.std(0).add(1e-3).log())
                self.initialised.fill_(True)
        return x * self.log_scale.exp()


class Denoiser(nn.Module):
    def __init__(self, width: int = 8, dropout: float = 0.2, noise: float = 0.1) -> None:
        super().__init__()
        self.noise = noise
        self.net = nn.Sequential(
            SelfScaling(width),
            nn.Linear(width, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(16, width),
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.net[1].parameters():
                parameter.uniform_(-0.3, 0.3, generator=generator)
            for parameter in self.net[5].parameters():
                parameter.uniform_(-0.3, 0.3, generator=generator)

    def training_loss(self, batch: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(batch.shape, generator=generator) * self.noise if self.noise else 0.0
        return ((self.net(batch + noise) - batch) ** 2).mean()


@pytest.fixture
def denoiser() -> Callable[..., Denoiser]:
    return Denoiser


@pytest.fixture
def numbers() -> Tensor:
    """Correlated vectors `[203, 8]`: not a multiple of any batch size used here."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(203, 3, generator=generator) @ torch.randn(3, 8, generator=generator)


@pytest.fixture
def same() -> Callable[[nn.Module, nn.Module], bool]:
    """Whether two modules hold the same bits."""

    def compare(one: nn.Module, other: nn.Module) -> bool:
        first, second = one.state_dict(), other.state_dict()
        return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)

    return compare
