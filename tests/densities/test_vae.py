"""The VAE's bounds against a linear-Gaussian model, whose marginal and posterior are known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dracones.densities.registry import create, from_config
from dracones.densities.vae import PRESETS, VAE

SHAPE = (1, 2, 3)
DEVIATION = 0.1


def images(count, shape=SHAPE, seed=0):
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed)) / 255


def linear_gaussian(*, encoder="exact", samples=4, **options):
    """x = W z + 0.5 + 0.1 noise on 2×3 images, z in R², W with orthogonal columns; and the pieces of its truth."""
    vae = VAE(SHAPE, latents=2, stages=0, likelihood="gaussian", samples=samples, **options).double().eval()
    weight = torch.tensor([[1.0, 1], [1, -1], [1, 1], [1, -1], [0.5, 0], [0, 0.5]], dtype=torch.float64) * 0.12
    precision = weight.T @ weight / DEVIATION**2 + torch.eye(2, dtype=torch.float64)
    assert float(precision[0, 1].abs()) < 1e-12
    to_mean = torch.linalg.solve(precision, weight.T) / DEVIATION**2
    head, linear = vae.decoder.layers[0], vae.encoder[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[:6] = weight
        head.bias[6:] = math.log(DEVIATION) + 2
        linear.weight.zero_()
        linear.bias.zero_()
        # the encoder sees 2x - 1 = 2 (x - 0.5)
        linear.weight[:2] = to_mean / 2
        linear.bias[2:] = -0.5 * precision.diagonal().log()
        if encoder == "lost":
            linear.weight[:2] *= 0.7
            linear.bias[2:] += 0.4
    covariance = weight @ weight.T + DEVIATION**2 * torch.eye(6, dtype=torch.float64)
    marginal = MultivariateNormal(torch.full((6,), 0.5, dtype=torch.float64), covariance)

    def truth(x):
        points, _ = vae.dequantise(x.double())
        flat = points.flatten(1)
        posterior = Normal((flat - 0.5) @ to_mean.T, precision.diagonal().rsqrt())
        return marginal.log_prob(flat) - 6 * math.log(256), posterior

    return vae, truth


def test_with_the_exact_posterior_every_bound_is_the_marginal():
    vae, truth = linear_gaussian(regret_steps=20)
    x = images(5).double()
    found = vae.statistics(x)
    log_p, _ = truth(x)
    # p(x|z) p(z) / q(z|x) is then p(x) for every z, one sample or many
    torch.testing.assert_close(found["log_prob"], log_p, rtol=1e-9, atol=1e-9)
    assert float(found["likelihood_regret"].detach().abs().max()) < 0.6


def test_elbo_falls_short_by_the_kl_to_the_true_posterior_and_the_bound_closes_with_k():
    x = images(6, seed=3).double() * 0.3 + 0.35
    gaps = []
    for samples in (1, 16, 2048):
        vae, truth = linear_gaussian(encoder="lost", samples=samples)
        log_p, posterior = truth(x)
        found = vae.statistics(x, names=["log_prob", "elbo", "kl", "reconstruction"])
        gaps.append((log_p - found["log_prob"]).mean())
        q = vae.posterior(x)
        short = kl_divergence(Normal(q.mean, q.log_deviation.exp()), posterior).sum(1)
        prior = kl_divergence(Normal(q.mean, q.log_deviation.exp()), Normal(torch.zeros(2).double(), 1.0)).sum(1)
        torch.testing.assert_close(found["kl"], prior, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found["elbo"], found["reconstruction"] - found["kl"])
        if samples == 2048:
            torch.testing.assert_close(found["elbo"], log_p - short, rtol=0, atol=0.25)
    assert gaps[0] > gaps[2]
    assert float(gaps[2].detach().abs()) < 0.02


def test_regret_is_what_a_better_posterior_gains():
    vae, truth = linear_gaussian(encoder="lost", samples=2048, regret_steps=300, regret_rate=0.03)
    x = images(4, seed=3).double() * 0.3 + 0.35
    _, posterior = truth(x)
    q = vae.posterior(x)
    gain = kl_divergence(Normal(q.mean, q.log_deviation.exp()), posterior).sum(1)
    with torch.inference_mode():
        regret = vae.statistics(x, names=["likelihood_regret"])["likelihood_regret"]
    assert float(gain.detach().min()) > 0.2
    torch.testing.assert_close(regret, gain, rtol=0.1, atol=0.1)


def test_regret_depends_on_the_image_alone():
    vae = VAE((1, 8, 8), latents=3, width=4, stages=2, regret_steps=10).eval()
    x = images(3, (1, 8, 8))
    together = vae.statistics(x, names=["likelihood_regret"])["likelihood_regret"]
    alone = vae.statistics(x[1:2], names=["likelihood_regret"])["likelihood_regret"]
    torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=2e-2)
    assert not vae.training
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_bound_at_points_is_the_log_prob_and_has_the_right_gradient():
    vae, _ = linear_gaussian()
    x = images(3).double()
    points, _ = vae.dequantise(x)
    points.requires_grad_()
    at = vae.log_prob_at(points)
    torch.testing.assert_close(at, vae.log_prob(x))
    (gradient,) = torch.autograd.grad(at.sum(), points)
    marginal = MultivariateNormal(torch.full((6,), 0.5).double(), _covariance(vae))
    flat = points.detach().flatten(1).requires_grad_()
    (expected,) = torch.autograd.grad(marginal.log_prob(flat).sum(), flat)
    torch.testing.assert_close(gradient.flatten(1), expected, rtol=1e-6, atol=1e-6)


def _covariance(vae):
    weight = vae.decoder.layers[0].weight[:6].detach()
    return weight @ weight.T + DEVIATION**2 * torch.eye(6).double()


@pytest.mark.parametrize("likelihood", ["logistic", "categorical", "bernoulli", "gaussian"])
def test_training_teaches_and_the_bound_is_below_the_entropy(likelihood):
    # two images by a fair coin: one bit of information in 48 values, so at best 1/48 bits a dimension
    generator = torch.Generator().manual_seed(0)
    pair = torch.stack([torch.full((1, 6, 8), 0.2), torch.full((1, 6, 8), 0.7)])
    vae = VAE((1, 6, 8), latents=2, width=8, stages=1, likelihood=likelihood, samples=8)
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-2)
    first = None
    for _ in range(90):
        loss = vae.training_loss(pair[torch.randint(0, 2, (16,), generator=generator)], generator=generator)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
        optimizer.step()
    with torch.no_grad():
        bits = vae.eval().bits_per_dim(pair).mean()
    assert 1 / 48 <= float(bits) < first - (0.3 if likelihood == "bernoulli" else 1.5)


def test_more_training_samples_tighten_the_loss():
    x = images(32, (1, 8, 8))
    losses = []
    for count in (1, 32):
        vae = VAE((1, 8, 8), latents=3, width=4, stages=1, training_samples=count, seed=1).eval()
        with torch.no_grad():
            losses.append(float(vae.training_loss(x, generator=torch.Generator().manual_seed(0))))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 9), (2, 16, 5)])
def test_any_image_size_comes_back_at_its_own_size(shape):
    vae = VAE(shape, latents=3, width=4, stages=2).eval()
    x = images(2, shape)
    assert vae.reconstruct(x).shape == x.shape
    drawn = vae.sample(3, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, *shape)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1
    assert torch.equal(drawn, vae.sample(3, generator=torch.Generator().manual_seed(0)))


def test_score_depends_on_the_image_and_the_saved_state_alone():
    vae = VAE((3, 8, 8), latents=3, width=4, stages=2, samples=4).eval()
    x = images(4, (3, 8, 8))
    other = VAE((3, 8, 8), latents=3, width=4, stages=2, samples=4, seed=5).eval()
    other.load_state_dict(vae.state_dict())
    torch.manual_seed(123)
    names = ["log_prob", "elbo", "kl", "posterior_entropy", "prior_cross_entropy"]
    with torch.no_grad():
        for name, values in vae.statistics(x, names=names).items():
            torch.testing.assert_close(vae.statistics(x[1:2], names=names)[name], values[1:2], rtol=1e-5, atol=1e-3)
            assert torch.equal(other.statistics(x, names=names)[name], values)
        fresh = vae.log_prob(x, generator=torch.Generator().manual_seed(0))
        assert not torch.equal(fresh, vae.log_prob(x))
        assert torch.equal(fresh, vae.log_prob(x, generator=torch.Generator().manual_seed(0)))


def test_kl_is_cross_entropy_minus_entropy():
    vae = VAE((1, 8, 8), latents=3, width=4, stages=1).eval()
    found = vae.statistics(images(3, (1, 8, 8)), names=["kl", "posterior_entropy", "prior_cross_entropy"])
    q = vae.posterior(images(3, (1, 8, 8)))
    prior = Normal(0.0, 1.0)
    variance = (2 * q.log_deviation).exp()
    cross = (0.5 * math.log(2 * math.pi) + 0.5 * (q.mean**2 + variance)).sum(1)
    torch.testing.assert_close(found["prior_cross_entropy"], cross)
    expected = kl_divergence(Normal(q.mean, q.log_deviation.exp()), prior).sum(1)
    torch.testing.assert_close(found["kl"], expected)


def test_create_by_name_and_from_a_config():
    vae = create("vae", "tiny", image_shape=(1, 12, 12), latents=5)
    rebuilt = from_config(vae.config)
    rebuilt.load_state_dict(vae.state_dict())
    assert set(PRESETS) >= {"tiny", "small", "paper"}
    with torch.no_grad():
        x = images(2, (1, 12, 12))
        assert torch.equal(vae.eval().log_prob(x), rebuilt.eval().log_prob(x))


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="likelihood must be one of categorical, logistic, bernoulli, gaussian"):
        VAE((1, 8, 8), likelihood="mse")
    with pytest.raises(ValueError, match="cannot be halved 3 times; use stages=2 or fewer"):
        VAE((1, 4, 8), stages=3)
    with pytest.raises(ValueError, match="samples"):
        VAE((1, 8, 8), samples=0)
    vae = VAE((1, 8, 8), latents=2, width=4, stages=1)
    with pytest.raises(ValueError, match="cannot give the statistics"):
        vae.statistics(images(1, (1, 8, 8)), names=["log_det"])
    with pytest.raises(ValueError, match=r"\[1, 3, 8, 8\]"):
        vae.log_prob(images(1, (3, 8, 8)))
    with pytest.raises(TypeError, match="density of pixel levels"):
        vae.log_prob_at(images(1, (1, 8, 8)))


def test_scores_of_fixed_weights_stay_what_they_were():
    vae = VAE((1, 4, 6), latents=2, width=4, stages=1, samples=4, regret_steps=5, seed=0).eval()
    with torch.no_grad():
        found = vae.statistics(torch.linspace(0, 1, 24).reshape(1, 1, 4, 6))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {
            "log_prob": -169.83246,
            "elbo": -170.15053,
            "reconstruction": -170.08255,
            "kl": 0.06797,
            "posterior_entropy": 2.45141,
            "prior_cross_entropy": 2.51938,
            "likelihood_regret": 0.28548,
        },
        rel=2e-4,
        abs=2e-4,
    )
