"""The discretised logistic mixture against scipy, and at the ends of float32."""

import pytest
import torch
from scipy.stats import logistic

from dracones.densities.pixelcnn_logistic import LogisticMixture, discretized_logistic_log_prob


@pytest.mark.parametrize("mean", [-1.3, -0.2, 0.0, 0.99])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 2.0])
def test_levels_sum_to_one_and_agree_with_scipy(mean, log_scale):
    levels = torch.arange(256.0, dtype=torch.float64)
    log_p = discretized_logistic_log_prob(levels, torch.tensor(mean), torch.tensor(log_scale, dtype=torch.float64))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    scale = float(torch.tensor(log_scale, dtype=torch.float64).exp())
    edges = (torch.arange(257, dtype=torch.float64) * 2 - 1) / 255 - 1
    cdf = logistic.cdf(edges.numpy(), loc=float(torch.tensor(mean)), scale=scale)
    cdf[0], cdf[-1] = 0, 1
    expected = torch.from_numpy(cdf).diff()
    torch.testing.assert_close(log_p.exp(), expected, rtol=1e-7, atol=1e-12)


def test_far_levels_keep_finite_values_and_gradients():
    mean = torch.tensor(-1.0, requires_grad=True)
    log_scale = torch.tensor(-7.0, requires_grad=True)
    log_p = discretized_logistic_log_prob(torch.tensor([0.0, 128.0, 254.0, 255.0]), mean, log_scale)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert mean.grad.isfinite()
    assert log_scale.grad.isfinite()
    # one scale further away costs one nat: the logistic's tail, not a floor
    near = discretized_logistic_log_prob(torch.tensor(200.0), torch.tensor(-1.0), torch.tensor(-6.0))
    far = discretized_logistic_log_prob(torch.tensor(201.0), torch.tensor(-1.0), torch.tensor(-6.0))
    assert float(near - far) == pytest.approx(2 / 255 * float(torch.tensor(6.0).exp()), rel=1e-3)


def test_mixture_channels_condition_on_earlier_channels_only():
    torch.manual_seed(0)
    output = torch.randn(1, LogisticMixture.outputs(3, 2), 1, 1)
    mixture = LogisticMixture.from_output(output, channels=3)
    levels = torch.tensor([100.0, 30.0, 200.0]).reshape(1, 3, 1, 1)
    chain = sum(mixture.conditional_log_probs(levels, c)[0, int(levels[0, c]), 0, 0] for c in range(3))
    torch.testing.assert_close(chain, mixture.log_prob(levels)[0, 0, 0], rtol=1e-5, atol=1e-5)
    for channel in range(3):
        log_p = mixture.conditional_log_probs(levels, channel)
        assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(mixture.conditional_probs(levels, channel), log_p.exp(), rtol=1e-4, atol=2e-7)
        later = levels.clone()
        later[:, channel:] = 0
        assert torch.equal(mixture.conditional_log_probs(later, channel), log_p)


def test_mixture_counts_its_outputs():
    # PixelCNN++: 10 parameters a component for RGB
    assert LogisticMixture.outputs(3, 10) == 100
    assert LogisticMixture.outputs(1, 5) == 15


def test_samples_have_the_mixtures_moments():
    torch.manual_seed(0)
    output = torch.randn(1, LogisticMixture.outputs(2, 2), 1, 1) * 0.5
    mixture = LogisticMixture.from_output(output.expand(-1, -1, 60, 60), channels=2)
    drawn = mixture.sample(generator=torch.Generator().manual_seed(0))
    every = torch.cartesian_prod(torch.arange(256.0), torch.arange(256.0))
    single = LogisticMixture.from_output(output.expand(65536, -1, -1, -1), channels=2)
    p = single.log_prob(every[:, :, None, None]).flatten().double().exp()
    for values in (lambda v: v[:, 0], lambda v: v[:, 1], lambda v: v[:, 0] * v[:, 1] / 255):
        expected = float((p * values(every)).sum())
        spread = float((p * values(every) ** 2).sum() - expected**2) ** 0.5
        got = float(values(drawn[0].flatten(1).T).mean())
        assert got == pytest.approx(expected, abs=4.5 * spread / 60)
