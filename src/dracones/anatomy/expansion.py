"""log p expanded to second order about the mean normal image, and how far from it the expansion holds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dracones.anatomy.curvature import gradient_at, hessian_vector_products
from dracones.anatomy.estimates import mean_estimate
from dracones.anatomy.sides import evaluating, evenly
from dracones.densities import Density
from dracones.metrics import Estimate

CONTRASTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06)
TOLERANCE = 0.2
"""Share of the measured change within which a prediction counts as holding."""


@dataclass(frozen=True)
class Shrunk:
    """A set at one contrast about the mean normal image: mean log p less log p of that image, nats."""

    contrast: float
    measured: Estimate
    predicted: float
    """Contrast² times ½ Tr H Σ: what the expansion says."""

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured.value / self.predicted if self.predicted else float("nan")

    @property
    def holds(self) -> bool:
        """Whether the prediction is within 20 % of the measurement."""
        return abs(self.predicted - self.measured.value) <= TOLERANCE * abs(self.measured.value)


class Expansion:
    """log p about the mean of the normal points."""

    def __init__(self, density: Density, base: Tensor, count: int, seed: int, probes: int, batch_size: int) -> None:
        self.density, self.count, self.batch_size = density, count, batch_size
        self.centre = base.mean(0)
        self.gradient = gradient_at(density, self.centre)
        self.own_forms = self.forms(base)
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (probes, *self.centre.shape), generator=generator) * 2 - 1
        self.signs = signs.to(base)
        self.through = self._products(self.signs)

    def log_prob(self, points: Tensor) -> Tensor:
        """log p of each point, [N]."""
        with torch.no_grad(), evaluating(self.density):
            return torch.cat([self.density.log_prob_at(part) for part in points.split(256)]).double().cpu()

    def forms(self, points: Tensor) -> Tensor:
        """(x − μ)ᵀ H (x − μ) of the first points of a set, μ the set's mean, [n]; unbiased for Tr(H Σ)."""
        centred = evenly(points - points.mean(0), self.count)
        correction = len(points) / (len(points) - 1)
        return (centred * self._products(centred)).flatten(1).sum(1).double().cpu() * correction

    def about_the_centre(self, points: Tensor, contrast: float = 1.0) -> Tensor:
        """The points moved to the normal images' mean and shrunk towards it, inside the unit cube."""
        return (self.centre + contrast * (points - points.mean(0))).clamp(0, 1)

    def shrunk(self, points: Tensor) -> tuple[Shrunk, ...]:
        """Measured and predicted change of log p against the mean image, at every contrast, on the same few points."""
        few = evenly(points, self.count)
        centred = few - few.mean(0)
        quadratic = float((centred * self._products(centred)).flatten(1).sum(1).double().mean()) / 2
        at_centre = float(self.log_prob(self.centre[None]))
        return tuple(
            Shrunk(
                contrast,
                mean_estimate(self.log_prob(self.about_the_centre(few, contrast)) - at_centre),
                contrast**2 * quadratic,
            )
            for contrast in CONTRASTS
        )

    def diagonal(self, difference: Tensor) -> Estimate:
        """½ Σ_i H_ii d_i by Hutchinson: E[vᵀ D H v] over signs v."""
        return halved(mean_estimate((self.signs * difference * self.through).flatten(1).sum(1).double().cpu()))

    def mean_terms(self, mean: Tensor) -> float:
        """What a difference in means adds to the gap."""
        step = mean - self.centre
        curved = self._products(step[None])[0]
        return float((self.gradient * step).sum() + 0.5 * (step * curved).sum())

    def _products(self, vectors: Tensor) -> Tensor:
        return hessian_vector_products(self.density, self.centre, vectors, batch_size=self.batch_size)


def reached(curve: tuple[Shrunk, ...]) -> float | None:
    """The largest contrast up to which, from the smallest on, every prediction holds."""
    best = None
    for each in sorted(curve, key=lambda shrunk: shrunk.contrast):
        if not each.holds:
            break
        best = each.contrast
    return best


def halved(estimate: Estimate) -> Estimate:
    """Half of a value and of both ends of its interval."""
    return Estimate(*(value / 2 for value in estimate))
