"""Likelihood against the size of the compressed image: how much of the one is only the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from dracones.anatomy.estimates import auroc_estimate, correlation_estimate, mean_estimate
from dracones.anatomy.figures import colour, new_figure
from dracones.anatomy.finding import DRAWN, Finding, Row
from dracones.anatomy.sides import NORMAL, checked_sides, statistics_of
from dracones.densities import Density
from dracones.metrics import Estimate
from dracones.report.style import MARKS, MUTED, legend_above, legend_name

Array = NDArray[np.float64]
_MOST_POINTS = 400


@dataclass(frozen=True)
class Complexity(Finding):
    """Bits that the density and a lossless codec need for the same images, per dimension."""

    title: ClassVar[str] = "Likelihood against complexity"
    look_for: ClassVar[str] = (
        "Points along a common diagonal: the density finds likely what any compressor finds simple. What a set "
        "gains over the codec, its distance below the diagonal, is what the density knows of these images; the "
        "difference of the two scores (Serra et al. 2020) looks at that alone."
    )

    codec: str
    bits_per_dim: Mapping[str, Estimate]
    codec_bits_per_dim: Mapping[str, Estimate]
    correlation: Mapping[str, Estimate | None]
    """Pearson's, of the two within a set and over ``all``; None where one is constant."""
    rank_correlation: float | None
    """Spearman's, over all sets together."""
    auroc_likelihood: Mapping[str, Estimate]
    auroc_codec: Mapping[str, Estimate]
    """Of the codec's bits alone, larger taken for more anomalous: below 0.5 for a set that is simpler."""
    auroc_difference: Mapping[str, Estimate]
    """Of the density's bits less the codec's."""
    values: Mapping[str, tuple[Array, Array]] = field(metadata=DRAWN, repr=False)
    """Per set the bits/dim of the density and of the codec."""

    def rows(self) -> list[Row]:
        """One row a set."""
        return [
            {
                "set": name,
                "bits/dim": self.bits_per_dim[name],
                f"{self.codec} bits/dim": self.codec_bits_per_dim[name],
                "correlation": self.correlation[name],
                "AUROC, likelihood": self.auroc_likelihood.get(name),
                f"AUROC, {self.codec} alone": self.auroc_codec.get(name),
                "AUROC, difference": self.auroc_difference.get(name),
            }
            for name in self.bits_per_dim
        ]

    def figure(self) -> Figure:
        """A point an image."""
        figure, (axis,) = new_figure(height=3.6)
        for index, (name, (own, codec)) in enumerate(self.values.items()):
            shown = np.linspace(0, len(own) - 1, min(len(own), _MOST_POINTS)).round().astype(int)
            mark = MARKS[index % len(MARKS)]
            axis.plot(codec[shown], own[shown], mark, markersize=3, alpha=0.5, color=colour(index), markeredgewidth=0)
            axis.plot([], [], mark, markersize=5, color=colour(index), label=legend_name(name))
        axis.set_xlabel(f"{self.codec}, bits/dim")
        axis.set_title("density, bits/dim", loc="left", fontsize=9)
        low, high = axis.get_xlim()
        axis.axline((low, low), slope=1, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axis.set_xlim(low, high)
        legend_above(figure, axis, columns=3)
        return figure


def complexity(
    density: Density, normal: Tensor, others: Mapping[str, Tensor], *, codec: str = "webp", batch_size: int = 256
) -> Complexity:
    """Set the density's bits against those of a lossless codec, image by image.

    Args:
        density: any.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        codec: one of `dracones.rules.codecs`.
        batch_size: images at a time.

    Raises:
        ValueError: a codec that the installed Pillow lacks.

    Reference:
        Serra, Alvarez, Gomez, Slizovskaia, Nunez, Luque (2020), "Input Complexity and Out-of-distribution Detection
        with Likelihood-based Generative Models", figure 1 and eq. 3.

    Example:
        >>> import torch
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> found = complexity(density, torch.rand(9, 1, 8, 8), {"black": torch.zeros(9, 1, 8, 8)}, codec="png")
        >>> found.auroc_codec["black"].value
        0.0
    """
    sides = checked_sides(density, normal, others)
    name_of_bits = f"complexity_{codec}"
    found = statistics_of(density, sides, ("log_prob", name_of_bits), batch_size=batch_size)
    own = {name: -each["log_prob"] / (density.dimensions * np.log(2)) for name, each in found.items()}
    bits = {name: each[name_of_bits] / density.dimensions for name, each in found.items()}
    difference = {name: own[name] - bits[name] for name in own}
    every = np.concatenate(list(own.values())), np.concatenate(list(bits.values()))
    correlation = {name: _correlation(own[name], bits[name]) for name in own}
    together = _correlation(*every)
    return Complexity(
        codec,
        {name: mean_estimate(values) for name, values in own.items()},
        {name: mean_estimate(values) for name, values in bits.items()},
        {**correlation, "all": together},
        None if together is None else float(spearmanr(*every).statistic),
        _aurocs(own),
        _aurocs(bits),
        _aurocs(difference),
        {name: (own[name], bits[name]) for name in own},
    )


def _correlation(own: Array, bits: Array) -> Estimate | None:
    return None if own.std() == 0 or bits.std() == 0 else correlation_estimate(own, bits)


def _aurocs(scores: Mapping[str, Array]) -> dict[str, Estimate]:
    return {name: auroc_estimate(scores[NORMAL], values) for name, values in scores.items() if name != NORMAL}
