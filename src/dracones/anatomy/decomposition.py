"""Where a likelihood comes from: the terms that add up to it, each with its own say on every set of images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from dracones.anatomy.estimates import auroc_estimate, difference_estimate, mean_estimate
from dracones.anatomy.figures import histograms, intervals, new_figure
from dracones.anatomy.finding import DRAWN, Finding, Row
from dracones.anatomy.needs import UnsupportedError
from dracones.anatomy.sides import NORMAL, checked_sides, statistics_of
from dracones.densities import Density
from dracones.metrics import Estimate
from dracones.report.style import legend_above

Array = NDArray[np.float64]

WORDS = {
    "log_prob": "likelihood log p(x)",
    "log_prob_latent": "latent term log p(z)",
    "log_det": "volume term log|det|",
    "input_log_det": "volume of the logit alone",
    "elbo": "lower bound (ELBO)",
    "reconstruction": "reconstruction term",
    "negative_kl": "−KL to the prior",
    "expected_log_prob": "expected likelihood (the model's own entropy)",
    "excess": "excess over the expected likelihood",
}


def words(term: str) -> str:
    """A term's name for readers.

    >>> words("log_det"), words("level1_log_det")
    ('volume term log|det|', 'volume term log|det|, level 1')
    """
    if term.startswith("level"):
        level, _, rest = term.removeprefix("level").partition("_")
        return f"{words(rest)}, level {level}"
    return WORDS.get(term, term)


@dataclass(frozen=True)
class Term:
    """One term of the likelihood. Estimates hold 95 % intervals; nats per image."""

    name: str
    normal: Estimate
    """Mean on the normal images."""
    others: Mapping[str, Estimate]
    """Mean on each other set."""
    gap: Mapping[str, Estimate]
    """Mean on the other set less mean on the normal images: positive where the other set gets more."""
    auroc: Mapping[str, Estimate]
    """Of the score −term: below 0.5 where the term prefers the other set."""


@dataclass(frozen=True)
class Decomposition(Finding):
    """``total`` = the sum of ``parts``; ``levels`` and whatever else the parts consist of in ``details``."""

    title: ClassVar[str] = "Which term of the likelihood decides"
    look_for: ClassVar[str] = (
        "A set whose outline lies to the right of the filled normal images gets more of that term. An AUROC under "
        "0.5 means that the term prefers the other set; the part that repeats the likelihood's mistake causes it."
    )

    total: Term
    parts: tuple[Term, ...]
    details: tuple[Term, ...]
    dimensions: int
    values: Mapping[str, Mapping[str, Array]] = field(metadata=DRAWN, repr=False)
    """Set to term to values [N], nats."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """All of them, the total first."""
        return (self.total, *self.parts, *self.details)

    def decisive(self, other: str) -> Term:
        """The part that moves the likelihood of ``other`` furthest in the direction in which it went."""
        direction = np.sign(self.total.gap[other].value) or 1.0
        return max(self.parts, key=lambda part: direction * part.gap[other].value)

    def share(self, other: str, part: str) -> float:
        """Part of the total's gap that a part makes up; parts of opposite sign exceed 1."""
        gap = next(term for term in self.parts if term.name == part).gap[other].value
        whole = self.total.gap[other].value
        return gap / whole if whole else float("nan")

    def rows(self) -> list[Row]:
        """One row a term and other set."""
        return [
            {
                "term": words(term.name),
                "set": name,
                "gap (bits/dim)": _bits(term.gap[name], self.dimensions),
                "AUROC alone": term.auroc[name],
            }
            for name in self.total.others
            for term in self.terms
        ]

    def figure(self) -> Figure:
        """Histograms of the total and its parts above their AUROCs."""
        shown = (self.total, *self.parts)
        figure, axes = new_figure(len(shown), height=1.7)
        for axis, term in zip(axes, shown, strict=True):
            histograms(
                axis, {name: found[term.name] for name, found in self.values.items()}, label=f"{words(term.name)}, nats"
            )
        legend_above(figure, axes[0], columns=3)
        return figure

    def auroc_figure(self) -> Figure:
        """AUROC of every term, level by level."""
        figure, axes = new_figure(height=1.0 + 0.27 * len(self.terms) * max(1, len(self.total.others) / 2))
        names = [words(term.name) for term in self.terms]
        series = {name: [term.auroc[name] for term in self.terms] for name in self.total.others}
        intervals(axes[0], names, series, label="AUROC of −term")
        axes[0].set_xlim(-0.02, 1.02)
        legend_above(figure, axes[0], columns=3)
        return figure

    @classmethod
    def of_values(
        cls, values: Mapping[str, Mapping[str, Array]], total: str, parts: tuple[str, ...], dimensions: int
    ) -> Self:
        """From the terms' values: set to term to [N], the set ``normal`` among them."""
        names = list(values[NORMAL])
        made = {name: _term(name, {key: found[name] for key, found in values.items()}) for name in names}
        details = tuple(made[name] for name in names if name != total and name not in parts)
        return cls(made[total], tuple(made[name] for name in parts), details, dimensions, values)


def decompose(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
) -> Decomposition:
    """Split the likelihood of every image into the terms that add up to it.

    A flow: log p(x) = log p(z) + log|det|, each also by multi-scale level. A VAE: ELBO = reconstruction − KL. A
    PixelCNN: log p(x) = what its own conditional distributions expect + what the image exceeds it by.

    Args:
        density: whose likelihood.
        normal: images [N, C, H, W] in [0, 1] like those it was trained on.
        others: name to images of the same shape.
        generator: for fresh dequantisation noise; the density's saved noise without it.
        batch_size: images at a time.

    Raises:
        ValueError: shapes that differ from the density's; fewer than two images in a set.
        UnsupportedError: a density whose likelihood has no terms.

    Reference:
        Nalisnick, Matsukawa, Teh, Gorur, Lakshminarayanan (2019), "Do Deep Generative Models Know What They Don't
        Know?", section 4, figure 3; per level: Kirichenko, Izmailov, Wilson (2020), section 5.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> g = torch.Generator().manual_seed(0)
        >>> found = decompose(density, torch.rand(9, 1, 8, 8, generator=g), {"black": torch.zeros(9, 1, 8, 8)})
        >>> [term.name for term in found.parts]
        ['log_prob_latent', 'log_det']
    """
    sides = checked_sides(density, normal, others)
    known = density.available_statistics
    fitting = [each for each in (_FLOW, _VAE, _PIXELCNN) if all(name in known for name in each[2])]
    if not fitting:
        raise UnsupportedError(
            f"the decomposition needs a likelihood made of terms; {type(density).__name__} gives {list(known)}. "
            "Densities that support it: glow, realnvp, vae, pixelcnn"
        )
    total, parts, make = fitting[0]
    wanted = list(make)
    if total == "log_prob" and "log_det" in make:
        wanted += [name for name in known if name.endswith(("_log_det", "_log_prob_latent"))]
    found = statistics_of(density, sides, tuple(wanted), generator=generator, batch_size=batch_size)
    values = {name: _derived(numbers) for name, numbers in found.items()}
    return Decomposition.of_values(values, total, parts, density.dimensions)


# total, parts, statistics to ask the density for
_FLOW = ("log_prob", ("log_prob_latent", "log_det"), ("log_prob", "log_prob_latent", "log_det"))
_VAE = ("elbo", ("reconstruction", "negative_kl"), ("elbo", "reconstruction", "kl", "log_prob"))
_PIXELCNN = ("log_prob", ("expected_log_prob", "excess"), ("log_prob", "expected_log_prob"))


def _derived(found: Mapping[str, Array]) -> dict[str, Array]:
    values = dict(found)
    if "kl" in values:
        values["negative_kl"] = -values.pop("kl")
    if "expected_log_prob" in values:
        values["excess"] = values["log_prob"] - values["expected_log_prob"]
    return values


def _term(name: str, values: Mapping[str, Array]) -> Term:
    normal = values[NORMAL]
    others = {key: found for key, found in values.items() if key != NORMAL}
    return Term(
        name,
        mean_estimate(normal),
        {key: mean_estimate(found) for key, found in others.items()},
        {key: difference_estimate(found, normal) for key, found in others.items()},
        {key: auroc_estimate(-normal, -found) for key, found in others.items()},
    )


def _bits(nats: Estimate, dimensions: int) -> Estimate:
    """A gap in log-probability, as bits per dimension saved."""
    return Estimate(*(value / (dimensions * float(np.log(2))) for value in nats))
