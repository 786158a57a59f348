"""A normalizing flow as a density of 8-bit images: dequantise, stretch to the line, flow."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dracones.densities.bits import LEVELS, from_unit
from dracones.densities.density import Density
from dracones.densities.latents import LATENT_STATISTICS, autocorrelation, whiteness
from dracones.flows import Flow, Logit


class FlowDensity(Density):
    """log P(image) = log p(z) + log|det|, exact, with every term by level as a statistic.

    `flow` maps the logits of the dequantised image to its latents; `margin` is the logit's (alpha in Dinh et al.
    2017, section 4.1). Statistics, in nats [B]:
    - `log_prob` = `log_prob_latent` + `log_det`;
    - `log_det` = the sum of `level{i}_log_det` + `input_log_det` (the logit's) - D log 256;
    - `log_prob_latent` = the sum of `level{i}_log_prob_latent`;
    - `level{i}_autocorrelation`, `level{i}_whiteness`: structure left in the latents, see `latents`; no nats.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        flow: Flow,
        *,
        levels: int,
        margin: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__(image_shape, seed=seed)
        self.levels = levels
        self.logit = Logit(margin)
        self.flow = flow

    @property
    def available_statistics(self) -> tuple[str, ...]:
        """Names that `statistics` can give."""
        return (
            "log_prob",
            "log_prob_latent",
            "log_det",
            "input_log_det",
            *(f"level{i}_log_prob_latent" for i in range(self.levels)),
            *(f"level{i}_log_det" for i in range(self.levels)),
            *(f"level{i}_{each}" for each in LATENT_STATISTICS for i in range(self.levels)),
        )

    def forward(
        self, images: Tensor, *, names: Sequence[str], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Named terms [B]; all come from one pass of the flow."""
        points, constant = self.dequantise(images, generator=generator)
        inputs, input_log_det = self.logit.encode(points)
        terms = self.flow.terms(inputs)
        log_det = terms.log_det + input_log_det + constant
        found = {
            "log_prob": terms.log_prob_latent + log_det,
            "log_prob_latent": terms.log_prob_latent,
            "log_det": log_det,
            "input_log_det": input_log_det,
        }
        for i in range(self.levels):
            found[f"level{i}_log_prob_latent"] = terms.level_log_prob_latent[:, i]
            found[f"level{i}_log_det"] = terms.level_log_det[:, i]
            if f"level{i}_autocorrelation" in names:
                found[f"level{i}_autocorrelation"] = autocorrelation(terms.latents[i])
            if f"level{i}_whiteness" in names:
                found[f"level{i}_whiteness"] = whiteness(terms.latents[i])
        return {name: found[name] for name in names}

    def log_prob_at(self, points: Tensor) -> Tensor:
        """Nats [B] of points of the unit cube, differentiable; -D log 256 is included."""
        self.check_images(points)
        inputs, input_log_det = self.logit.encode(points)
        return self.flow.log_prob(inputs) + input_log_det - self.dimensions * math.log(LEVELS)

    def encode(self, images: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """The latents of 8-bit images, one tensor per level."""
        self.check_images(images)
        points, _ = self.dequantise(images, generator=generator)
        latents, _ = self.flow.encode(self.logit.encode(points)[0])
        return latents

    def decode(self, latents: tuple[Tensor, ...]) -> Tensor:
        """8-bit images in [0, 1] of all latents: exactly those that `encode` was given."""
        return from_unit(self.decode_points(latents))

    def decode_points(self, latents: tuple[Tensor, ...]) -> Tensor:
        """Points of the unit cube, differentiable, of all latents."""
        return self.logit.decode(self.flow.decode(latents))[0]

    def sample(self, count: int, *, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Images [count, C, H, W] in [0, 1] drawn from the density, latents multiplied by the temperature."""
        with torch.no_grad():
            drawn = self.flow.sample(count, generator=generator, temperature=temperature)
            return from_unit(self.logit.decode(drawn)[0])

    @property
    def noise_directions_below(self) -> float:
        """Singular value of the decoder under which a direction is dequantisation noise: two levels of 256.

        The threshold of the local intrinsic dimension. A unit step of z along such a direction moves the image
        by about the width of the noise that was added to it, so it carries no content.
        """
        return 2 / LEVELS

    def encode_flat(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """All latents in one row per image [B, D]."""
        return torch.cat([latent.flatten(1) for latent in self.encode(images, generator=generator)], dim=1)

    def decode_flat(self, rows: Tensor) -> Tensor:
        """Points of the unit cube [B, D] of latents in rows: the map whose Jacobian tells the dimension."""
        shapes = self._latent_shapes()
        parts = rows.split([shape.numel() for shape in shapes], dim=1)
        latents = tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))
        return self.decode_points(latents).flatten(1)

    def _latent_shapes(self) -> list[torch.Size]:
        blank = torch.empty(1, *self.image_shape, device=self.dequantise.noise.device)
        return [latent.shape[1:] for latent in self.flow.bijection.image_to_levels(blank)]
