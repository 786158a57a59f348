import math

import pytest
import torch

from dracones.densities import Dequantisation, bits_per_dim, create, from_unit, to_levels
from dracones.densities.flow_density import FlowDensity
from dracones.flows import Chain, Flow
from dracones.flows.distributions import Base


class UniformOfLogit(Base):
    """The distribution of logit(margin + (1 - 2 margin) U): what the logit makes of a uniform image."""

    def __init__(self, margin):
        super().__init__()
        self.margin = margin

    def elementwise_log_prob(self, z):
        return torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z) - math.log(1 - 2 * self.margin)

    def log_prob(self, z):
        return self.elementwise_log_prob(z).flatten(1).sum(1)

    def sample(self, like, generator=None):
        u = torch.rand(like.shape, generator=generator)
        return torch.logit(self.margin + (1 - 2 * self.margin) * u)


def uniform_density(margin=0.05, shape=(3, 8, 8)):
    return FlowDensity(shape, Flow(Chain(), UniformOfLogit(margin), shape=shape), levels=1, margin=margin)


@pytest.mark.parametrize("margin", [0.05, 0.01])
@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_uniform_density_over_256_levels_costs_exactly_8_bits(margin, level):
    images = torch.full((2, 3, 8, 8), level / 255)
    bits = uniform_density(margin).eval().bits_per_dim(images)
    assert bits == pytest.approx([8.0, 8.0], abs=1e-4)


def test_gaussian_pixels_cost_what_the_integral_over_levels_says():
    """A pixel density N(0.5, s) on the unit interval: mean bits against the integral, level by level."""
    from scipy import stats

    spread, margin = 0.2, 0.05
    pixel = stats.truncnorm(-0.5 / spread, 0.5 / spread, loc=0.5, scale=spread)

    class OfLogit(UniformOfLogit):
        def elementwise_log_prob(self, z):
            y = (torch.sigmoid(z) - self.margin) / (1 - 2 * self.margin)
            gaussian = torch.as_tensor(pixel.logpdf(y.clamp(1e-6, 1 - 1e-6).double().numpy()))
            return super().elementwise_log_prob(z).double() + gaussian

    density = FlowDensity((1, 16, 16), Flow(Chain(), OfLogit(margin), shape=(1, 16, 16)), levels=1, margin=margin)
    levels = torch.arange(256).view(1, 1, 16, 16) / 255
    edges = torch.arange(257) / 256
    mass = torch.as_tensor(pixel.cdf(edges[1:].numpy()) - pixel.cdf(edges[:-1].numpy()))
    exact = float(-mass.log().mean() / math.log(2))
    generator = torch.Generator().manual_seed(0)
    bits = torch.stack([density.bits_per_dim(levels, generator=generator) for _ in range(50)]).mean()
    assert float(bits) == pytest.approx(exact, abs=1e-3)


def test_bits_per_dim_of_numbers_and_tensors():
    assert bits_per_dim(-10 * math.log(2), 10) == pytest.approx(1.0)
    assert bits_per_dim(torch.tensor([-4 * math.log(2)]), 2).tolist() == pytest.approx([2.0])
    with pytest.raises(ValueError, match="must be positive"):
        bits_per_dim(-1.0, 0)


def test_levels_refuse_what_would_be_silently_wrong():
    with pytest.raises(TypeError, match="divide 8-bit images by 255"):
        to_levels(torch.zeros(1, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        to_levels(torch.tensor([-0.5, 0.5]))
    with pytest.raises(ValueError, match="not a number"):
        to_levels(torch.tensor([float("nan")]))
    assert to_levels(torch.empty(0)).shape == (0,)


def test_dequantisation_keeps_every_level_and_undoes_itself():
    levels = torch.arange(256).view(1, 1, 16, 16)
    images = levels / 255
    dequantise = Dequantisation((1, 16, 16))
    for generator in (None, torch.Generator().manual_seed(3)):
        points, log_det = dequantise(images, generator=generator)
        assert points.min() > 0
        assert points.max() < 1
        assert torch.equal((points * 256).floor(), levels)
        assert torch.equal(from_unit(points), images)
        assert log_det == pytest.approx(-256 * math.log(256))


@pytest.mark.parametrize("noise", [0.0, math.nextafter(1.0, 0.0), 1 - 2**-24])
def test_no_noise_rounds_a_pixel_out_of_the_open_cube_or_into_the_next_level(noise, monkeypatch):
    """Between 128 and 256 float32 has steps of 2^-16: 255 + noise below 1 is 256, whose logit is infinite."""
    levels = torch.arange(256).view(1, 1, 16, 16)
    dequantise = Dequantisation((1, 16, 16))
    dequantise.noise.fill_(noise)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, noise))
    for generator in (None, torch.Generator()):
        points, _ = dequantise(levels / 255, generator=generator)
        assert torch.isfinite(torch.logit(points)).all()
        assert torch.equal((points * 256).floor(), levels)


def test_dequantisation_without_generator_is_the_same_for_every_image_and_call():
    dequantise = Dequantisation((1, 4, 4))
    images = torch.full((3, 1, 4, 4), 0.5)
    points, _ = dequantise(images)
    assert torch.equal(points[0], points[2])
    assert torch.equal(points, dequantise(images)[0])
    assert not torch.equal(dequantise(images, generator=torch.Generator().manual_seed(0))[0], points)


def test_a_new_glow_knows_no_more_than_its_logit():
    """Zero-ended couplings and rotations: log p = standard normal of the logits, whatever the architecture."""
    density = create("glow", image_shape=(1, 8, 8), steps=2).eval()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits, slope = density.logit.encode(density.dequantise(images)[0])
    normal = torch.distributions.Normal(0, 1).log_prob(logits).flatten(1).sum(1)
    expected = normal + slope - 64 * math.log(256)
    assert torch.allclose(density.log_prob(images), expected, rtol=1e-5)
