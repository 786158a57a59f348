"""VAE: a density known through a lower bound, which importance samples make as tight as one likes."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dracones.densities.bits import bits_per_dim, check_unit, rounded
from dracones.densities.density import Density
from dracones.densities.pixelcnn_logistic import centred
from dracones.densities.registry import register
from dracones.densities.vae_networks import Decoder, Encoder, normal_draws
from dracones.densities.vae_pixels import PIXEL_DISTRIBUTIONS
from dracones.draws import normal

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"latents": 16, "width": 16, "stages": 2, "likelihood": "logistic", "samples": 8},
    "small": {"latents": 64, "width": 32, "stages": 3, "likelihood": "logistic", "samples": 16},
    "continuous": {"latents": 64, "width": 32, "stages": 3, "likelihood": "gaussian", "samples": 16},
    "paper": {"latents": 100, "width": 32, "stages": 3, "likelihood": "categorical", "samples": 200},
}


class Posterior(NamedTuple):
    """q(z | x): independent normals."""

    mean: Tensor
    """[B, Z]."""
    log_deviation: Tensor
    """[B, Z]."""

    def draw(self, noise: Tensor) -> Tensor:
        """``mean + deviation · noise``."""
        return self.mean + self.log_deviation.exp() * noise

    def kl(self) -> Tensor:
        """KL(q ‖ N(0, I)) in nats [B]."""
        variance = (2 * self.log_deviation).exp()
        return 0.5 * (variance + self.mean**2 - 1 - 2 * self.log_deviation).sum(1)

    def entropy(self) -> Tensor:
        """Entropy of q in nats [B]."""
        return (self.log_deviation + 0.5 * math.log(2 * math.pi * math.e)).sum(1)


class Pixels(NamedTuple):
    """An image batch as the networks take it."""

    seen: Tensor
    """Encoder input, [-1, 1]."""
    target: Tensor
    """What the decoder's distribution is asked about: levels, or points of the unit cube."""
    log_det: float
    """Nats to add for the change from points to levels."""


@register("vae", PRESETS)
class VAE(Density):
    """p(x) = ∫ p(x|z) N(z; 0, I) dz, bounded by k importance samples from the encoder's posterior.

    ``log_prob`` is the importance-weighted bound log (1/k) Σ p(x|z_i) p(z_i) / q(z_i|x), nats of the 8-bit image. It
    never exceeds log p(x) in expectation, and grows to it with k. Without a generator the draws are one table saved
    with the weights, the same for every image.

    Statistics, per image, nats:
    - ``log_prob``: the bound with k samples; ``elbo``: ``reconstruction`` − ``kl``;
    - ``reconstruction``: E_q[log p(x|z)], mean over the k samples; ``kl``: KL(q(z|x) ‖ p(z)) ≥ 0, exact;
    - ``posterior_entropy``, ``prior_cross_entropy``: the two parts of the KL (with the sign of entropies), which
      DoSE reads (Morningstar et al. 2021);
    - ``likelihood_regret``: how much the ELBO gains when the posterior of this one image is optimised, decoder fixed
      (Xiao et al. 2020): large where the encoder is lost. The paper optimises a copy of the whole encoder; here it is
      the posterior's own mean and deviation, the paper's other choice, which treats all images of a batch at once.
      Takes ``regret_steps`` steps, so ask for it by name. The decoder is in eval mode for it.

    Args:
        image_shape: (C, H, W).
        latents: Z.
        width: features of the first stage; doubled in each next.
        stages: halvings of the image; 0 makes both networks one linear map.
        likelihood: ``"logistic"``, ``"categorical"``, ``"bernoulli"`` (all discrete) or ``"gaussian"`` (continuous).
        samples: k of the bound.
        training_samples: k of the training loss; 1 trains on the ELBO with its KL exact.
        regret_steps: Adam steps of the likelihood regret.
        regret_rate: their step size.
        seed: of weights and noise tables.

    Reference:
        Kingma, Welling (2014), "Auto-Encoding Variational Bayes"; Burda, Grosse, Salakhutdinov (2016), "Importance
        Weighted Autoencoders", eq. 8; Xiao, Yan, Amit (2020), "Likelihood Regret", eq. 5; networks after Rosca,
        Lakshminarayanan, Mohamed (2018) and Xiao's code.

    Example:
        >>> density = VAE((1, 8, 8), latents=4, width=8, stages=2).eval()
        >>> x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> found = density.statistics(x, names=["elbo", "reconstruction", "kl"])
        >>> torch.allclose(found["elbo"], found["reconstruction"] - found["kl"])
        True
    """

    noise: Tensor
    regret_noise: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        latents: int = 64,
        width: int = 32,
        stages: int = 3,
        likelihood: str = "logistic",
        samples: int = 16,
        training_samples: int = 1,
        regret_steps: int = 100,
        regret_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(image_shape, seed=seed)
        if likelihood not in PIXEL_DISTRIBUTIONS:
            raise ValueError(f"VAE: likelihood must be one of {', '.join(PIXEL_DISTRIBUTIONS)}, got {likelihood!r}")
        if min(latents, width, samples, training_samples) < 1 or stages < 0:
            raise ValueError(
                "VAE: latents, width, samples and training_samples must be at least 1 and stages at least 0, got "
                f"{latents}, {width}, {samples}, {training_samples} and {stages}"
            )
        if min(self.image_shape[1:]) < 1 << stages:
            raise ValueError(
                f"VAE: images of {self.image_shape[1]}×{self.image_shape[2]} cannot be halved {stages} times; "
                f"use stages={min(self.image_shape[1:]).bit_length() - 1} or fewer"
            )
        self.likelihood, self.latents = likelihood, latents
        self.training_samples, self.regret_steps, self.regret_rate = training_samples, regret_steps, regret_rate
        self.pixels = PIXEL_DISTRIBUTIONS[likelihood]()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder: torch.nn.Module = Encoder(self.image_shape, latents=latents, width=width, stages=stages)
            self.decoder: torch.nn.Module = Decoder(
                self.image_shape, latents=latents, width=width, stages=stages, outputs=self.pixels.outputs
            )
        self.register_buffer("noise", normal_draws(samples, latents, seed=seed))
        self.register_buffer("regret_noise", normal_draws(max(regret_steps, 1), latents, seed=seed + 1))

    @property
    def available_statistics(self) -> tuple[str, ...]:
        """Names that `statistics` can give."""
        parts = ("log_prob", "elbo", "reconstruction", "kl", "posterior_entropy", "prior_cross_entropy")
        return (*parts, "likelihood_regret")

    def posterior(self, images: Tensor) -> Posterior:
        """q(z | x) of images [B, C, H, W] in [0, 1]."""
        self.check_images(images)
        check_unit(images)
        return self._posterior(self._pixels(images, None))

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the decoder expects to see for the posterior's mean: [B, C, H, W] in [0, 1]."""
        return self.pixels.mean(self.decoder(self.posterior(images).mean))

    def forward(
        self, images: Tensor, *, names: Sequence[str], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Named numbers per image [B], nats; the samples are fresh when a generator is given."""
        pixels = self._pixels(images, generator)
        posterior = self._posterior(pixels)
        found = {
            "kl": posterior.kl(),
            "posterior_entropy": posterior.entropy(),
            "prior_cross_entropy": posterior.kl() + posterior.entropy(),
        }
        if {"log_prob", "elbo", "reconstruction", "likelihood_regret"} & set(names):
            draws = self._draws(images.shape[0], generator)
            log_weights, log_likelihoods = self._log_weights(pixels, posterior, draws)
            found["log_prob"] = torch.logsumexp(log_weights, 0) - math.log(len(log_weights)) + pixels.log_det
            found["reconstruction"] = log_likelihoods.mean(0) + pixels.log_det
            found["elbo"] = found["reconstruction"] - found["kl"]
        if "likelihood_regret" in names:
            found["likelihood_regret"] = self._optimised_elbo(pixels, posterior, draws) - found["elbo"]
        return {name: found[name] for name in names}

    def log_prob_at(self, points: Tensor) -> Tensor:
        """The bound at points of the unit cube, differentiable; for ``likelihood="gaussian"`` alone."""
        if self.pixels.discrete:
            return super().log_prob_at(points)
        pixels = Pixels(2 * points - 1, points, -self.dimensions * math.log(256))
        posterior = self._posterior(pixels)
        log_weights, _ = self._log_weights(pixels, posterior, self._draws(points.shape[0], None))
        return torch.logsumexp(log_weights, 0) - math.log(len(log_weights)) + pixels.log_det

    def training_loss(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean bits per dimension of the bound with ``training_samples`` samples."""
        self.check_images(images)
        check_unit(images)
        pixels = self._pixels(images, generator)
        posterior = self._posterior(pixels)
        draws = self._draws(images.shape[0], generator, count=self.training_samples)
        log_weights, log_likelihoods = self._log_weights(pixels, posterior, draws)
        if self.training_samples == 1:
            bound = log_likelihoods[0] - posterior.kl()
        else:
            bound = torch.logsumexp(log_weights, 0) - math.log(self.training_samples)
        return bits_per_dim(bound + pixels.log_det, self.dimensions).mean()

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Images [count, C, H, W] in [0, 1]: z from the prior, pixels from the decoder's distribution.

        The temperature multiplies z; pixels are drawn as they are.
        """
        latent = torch.randn(count, self.latents, generator=generator, device=generator.device).to(self.noise)
        latent = latent * temperature
        return self.pixels.sample(self.decoder(latent), generator)

    def _pixels(self, images: Tensor, generator: torch.Generator | None) -> Pixels:
        if self.pixels.discrete:
            levels = rounded(images)
            return Pixels(centred(levels), levels, 0.0)
        points, log_det = self.dequantise(images, generator=generator)
        return Pixels(2 * points - 1, points, log_det)

    def _posterior(self, pixels: Pixels) -> Posterior:
        mean, log_deviation = self.encoder(pixels.seen).chunk(2, dim=1)
        return Posterior(mean, log_deviation.clamp(-8, 4))

    def _draws(self, batch: int, generator: torch.Generator | None, *, count: int | None = None) -> Tensor:
        """Standard normal [k, B or 1, Z]: the saved table, the same for every image, or fresh for each."""
        count = len(self.noise) if count is None else count
        if generator is not None:
            shape = (count, batch, self.latents)
            return normal(shape, generator, dimension=1).to(self.noise)
        return self.noise.repeat(-(-count // len(self.noise)), 1)[:count, None]

    def _log_weights(self, pixels: Pixels, posterior: Posterior, draws: Tensor) -> tuple[Tensor, Tensor]:
        """``(log p(x|z) p(z)/q(z|x), log p(x|z))``, each [k, B]; one sample after the other, to bound the memory."""
        weights, likelihoods = [], []
        for noise in draws:
            latent = posterior.draw(noise)
            likelihood = self.pixels.log_prob(self.decoder(latent), pixels.target)
            # log p(z) − log q(z|x): the terms in log 2π cancel.
            ratio = (0.5 * (noise**2 - latent**2) + posterior.log_deviation).sum(1)
            likelihoods.append(likelihood)
            weights.append(likelihood + ratio)
        return torch.stack(weights), torch.stack(likelihoods)

    def _optimised_elbo(self, pixels: Pixels, posterior: Posterior, draws: Tensor) -> Tensor:
        """The ELBO [B] under the posterior that is best for each image, estimated with the ELBO's own draws."""
        training = self.training
        self.eval()
        # Adam works value by value and the loss is a sum: no image's path depends on its batch.
        with torch.inference_mode(mode=False), torch.enable_grad():
            target = pixels._replace(seen=pixels.seen.clone(), target=pixels.target.clone())
            mean = posterior.mean.detach().clone().requires_grad_()
            log_deviation = posterior.log_deviation.detach().clone().requires_grad_()
            optimizer = torch.optim.Adam([mean, log_deviation], lr=self.regret_rate)
            for noise in self.regret_noise[: self.regret_steps]:
                trial = Posterior(mean, log_deviation)
                likelihood = self.pixels.log_prob(self.decoder(trial.draw(noise)), target.target)
                loss = (trial.kl() - likelihood).sum()
                mean.grad, log_deviation.grad = torch.autograd.grad(loss, [mean, log_deviation])
                optimizer.step()
        with torch.no_grad():
            best = Posterior(mean.detach(), log_deviation.detach())
            _, likelihoods = self._log_weights(pixels, best, draws)
        self.train(training)
        return likelihoods.mean(0) + pixels.log_det - best.kl()
