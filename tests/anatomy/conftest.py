"""Densities whose anatomy is known."""

import math

import pytest
import torch

from dracones.densities import Density, FlowDensity
from dracones.flows import AdditiveCoupling, Chain, Flow, halves


@pytest.fixture
def identity_flow():
    """A flow that does nothing after the logit: z = logit(x), log|det| of the flow is 0."""

    def make(shape, margin=0.05):
        return FlowDensity(shape, Flow(Chain(), shape=shape), levels=1, margin=margin).eval()

    return make


@pytest.fixture
def random_images():
    """Uniform 8-bit images."""

    def make(count, shape, seed=0, low=0, high=256):
        return torch.randint(low, high, (count, *shape), generator=torch.Generator().manual_seed(seed)) / 255

    return make


class Copied(torch.nn.Module):
    """A conditioner for images of two rows: each row's shift is a multiple of the other row."""

    def __init__(self, factor):
        super().__init__()
        self.register_buffer("factor", torch.tensor(float(factor)))

    def forward(self, x):
        return self.factor.to(x.dtype) * x.roll(1, 2)


@pytest.fixture
def whispering_flow():
    """Two additive couplings on [1, 2, W]: the first writes a·top into the bottom, the second reads it back as −t."""

    def make(width, loudness=3.0):
        shape = (1, 2, width)
        chain = Chain(
            AdditiveCoupling(halves(shape), Copied(loudness)),
            AdditiveCoupling(halves(shape, reverse=True), Copied(-1 / loudness)),
        )
        return FlowDensity(shape, Flow(chain, shape=shape), levels=1).eval()

    return make


class NormalDensity(Density):
    """A normal distribution of the points of the unit cube: its log p is exactly quadratic."""

    def __init__(self, shape, mean, covariance):
        super().__init__(shape)
        self.register_buffer("mean", mean.double())
        self.register_buffer("covariance", covariance.double())

    @property
    def available_statistics(self):
        return ("log_prob",)

    def log_prob_at(self, points):
        normal = torch.distributions.MultivariateNormal(self.mean, self.covariance)
        return normal.log_prob(points.double().flatten(1)) - self.dimensions * math.log(256)

    def forward(self, images, *, names, generator=None):
        return {"log_prob": self.log_prob_at(self.dequantise(images, generator=generator)[0])}

    def sample(self, count, *, generator):
        noise = torch.randn(count, self.dimensions, generator=generator, dtype=torch.float64)
        points = self.mean + noise @ torch.linalg.cholesky(self.covariance).T
        return ((points * 256).floor().clamp(0, 255) / 255).float().reshape(count, *self.image_shape)


@pytest.fixture
def normal_density():
    """A normal density by its mean [D] and covariance [D, D]."""
    return NormalDensity
