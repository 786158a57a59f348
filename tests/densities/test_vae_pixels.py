"""The decoder's distributions: normalised, with the mean and the samples they claim."""

import math

import pytest
import torch
from scipy.integrate import quad

from dracones.densities.vae_pixels import PIXEL_DISTRIBUTIONS, Gaussian

DISCRETE = [name for name, kind in PIXEL_DISTRIBUTIONS.items() if kind.discrete]


def one_pixel_parameters(name, seed=0):
    outputs = PIXEL_DISTRIBUTIONS[name].outputs
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 1, outputs, 1, 1, generator=generator, dtype=torch.float64) * 2


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("seed", range(4))
def test_levels_sum_to_one(name, seed):
    distribution = PIXEL_DISTRIBUTIONS[name]()
    parameters = one_pixel_parameters(name, seed).expand(256, -1, -1, -1, -1)
    log_p = distribution.log_prob(parameters, torch.arange(256.0, dtype=torch.float64).reshape(256, 1, 1, 1))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("eta", [-500.0, -3.0, -1e-5, 0.0, 1e-5, 2e-3, 3.0, 500.0])
def test_bernoulli_is_the_exponential_family_of_the_level(eta):
    distribution = PIXEL_DISTRIBUTIONS["bernoulli"]()
    levels = torch.arange(256.0, dtype=torch.float64)
    expected = torch.log_softmax(eta * levels / 255, 0)
    parameters = torch.full((256, 1, 1, 1, 1), eta, dtype=torch.float64, requires_grad=True)
    got = distribution.log_prob(parameters, levels.reshape(256, 1, 1, 1))
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)
    (gradient,) = torch.autograd.grad(got.sum(), parameters)
    assert gradient.isfinite().all()
    mean = (expected.exp() * levels / 255).sum()
    torch.testing.assert_close(distribution.mean(parameters.detach()[:1]).squeeze(), mean)


def test_gaussian_integrates_to_one_and_keeps_its_floor():
    distribution = Gaussian()
    parameters = one_pixel_parameters("gaussian")

    def p(x):
        return float(distribution.log_prob(parameters, torch.full((1, 1, 1, 1), x, dtype=torch.float64)).exp())

    assert quad(p, -10, 12, limit=200)[0] == pytest.approx(1, abs=1e-6)
    narrow = torch.tensor([0.0, -100.0]).reshape(1, 1, 2, 1, 1)
    peak = distribution.log_prob(narrow, torch.full((1, 1, 1, 1), 0.5))
    assert float(peak) == pytest.approx(-math.log(0.5 / 256) - 0.5 * math.log(2 * math.pi), rel=1e-6)


@pytest.mark.parametrize("name", sorted(PIXEL_DISTRIBUTIONS))
def test_samples_are_images_with_the_distributions_mean(name):
    distribution = PIXEL_DISTRIBUTIONS[name]()
    parameters = (one_pixel_parameters(name, 1) / 4).expand(-1, -1, -1, 60, 60)
    drawn = distribution.sample(parameters, torch.Generator().manual_seed(0))
    assert drawn.shape == (1, 1, 60, 60)
    torch.testing.assert_close(drawn * 255, (drawn * 255).round(), rtol=0, atol=1e-4)
    mean = float(distribution.mean(parameters)[0, 0, 0, 0])
    assert float(drawn.mean()) == pytest.approx(mean, abs=4.5 * float(drawn.std()) / 60 + 1e-3)
