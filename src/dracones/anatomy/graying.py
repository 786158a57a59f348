"""Graying: the likelihood of the same images as their contrast shrinks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from dracones.anatomy.estimates import auroc_estimate, mean_estimate
from dracones.anatomy.figures import image_grid, line, new_figure
from dracones.anatomy.finding import DRAWN, Finding, Row
from dracones.anatomy.sides import NORMAL, Sides, checked_sides, statistics_of
from dracones.densities import Density
from dracones.metrics import Estimate
from dracones.report.style import legend_above

CONTRASTS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


def grayed(images: Tensor, contrast: float, *, gray: float = 0.5) -> Tensor:
    """``gray + contrast · (image − gray)`` on the 256 levels.

    Raises:
        ValueError: a contrast outside [0, 1].

    >>> import torch
    >>> grayed(torch.tensor([0.0, 1.0]), 0.5).mul(255).tolist()
    [64.0, 191.0]
    """
    if not 0 <= contrast <= 1:
        raise ValueError(f"contrast: expected a number in [0, 1], got {contrast}")
    return ((gray + contrast * (images - gray)) * 255).round() / 255


@dataclass(frozen=True)
class Graying(Finding):
    """Bits per dimension of every set at every contrast, and whether grayed images pass for more normal than normal."""

    title: ClassVar[str] = "Likelihood against contrast"
    look_for: ClassVar[str] = (
        "A line that falls from right to left: the paler the same images, the likelier. Where the normal images' "
        "own line falls below its right end, a washed-out copy is likelier than the original: the likelihood "
        "measures contrast."
    )

    contrasts: tuple[float, ...]
    bits_per_dim: Mapping[str, tuple[Estimate, ...]]
    """Set to one estimate a contrast; smaller is likelier."""
    auroc: Mapping[str, tuple[Estimate, ...]]
    """Of −log p, each set at each contrast against the normal images at full contrast."""
    examples: tuple[Tensor, ...] = field(metadata=DRAWN, repr=False)
    """One normal image at every contrast."""

    def rows(self) -> list[Row]:
        """One row a set and contrast."""
        return [
            {"set": name, "contrast": contrast, "bits/dim": bits, "AUROC against normal": area}
            for name in self.bits_per_dim
            for contrast, bits, area in zip(self.contrasts, self.bits_per_dim[name], self.auroc[name], strict=True)
        ]

    def figure(self) -> Figure:
        """Bits per dimension by contrast."""
        figure, (axis,) = new_figure(height=2.8)
        for index, (name, found) in enumerate(self.bits_per_dim.items()):
            line(axis, self.contrasts, found, index=index, label=name)
        axis.set_xlabel("contrast")
        axis.set_title("bits/dim (less is likelier)", loc="left", fontsize=9)
        legend_above(figure, axis, columns=3)
        return figure

    def image_figure(self) -> Figure:
        """One normal image at every contrast."""
        return image_grid([("normal", self.examples, None)], titles=[f"{contrast:g}" for contrast in self.contrasts])


def graying(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    contrasts: Sequence[float] = CONTRASTS,
    gray: float = 0.5,
    batch_size: int = 256,
) -> Graying:
    """Shrink the contrast of every set towards mid-gray and follow the likelihood.

    Args:
        density: any.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        contrasts: factors in [0, 1]; 1 leaves the images as they are, 0 makes them all gray.
        gray: what they shrink towards.
        batch_size: images at a time.

    Reference:
        Nalisnick et al. (2019), section 5, figure 6.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> import torch
        >>> x = torch.rand(5, 1, 8, 8)
        >>> found = graying(density, x, {"same": x}, contrasts=(1.0, 0.0))
        >>> found.bits_per_dim["normal"][1].value == found.bits_per_dim["same"][1].value
        True
    """
    sides = checked_sides(density, normal, others)
    values: dict[str, list[np.ndarray]] = {name: [] for name in sides.all}
    for contrast in contrasts:
        shrunk = {name: grayed(images, contrast, gray=gray) for name, images in sides.all.items()}
        treated = Sides(shrunk.pop(NORMAL), shrunk)
        for name, found in statistics_of(density, treated, ("log_prob",), batch_size=batch_size).items():
            values[name].append(found["log_prob"])
    full = Sides(sides.normal, {})
    reference = -statistics_of(density, full, ("log_prob",), batch_size=batch_size)[NORMAL]["log_prob"]
    scale = -1 / (density.dimensions * float(np.log(2)))
    return Graying(
        tuple(contrasts),
        {name: tuple(mean_estimate(each * scale) for each in found) for name, found in values.items()},
        {name: tuple(auroc_estimate(reference, -each) for each in found) for name, found in values.items()},
        tuple(grayed(sides.normal[0], contrast, gray=gray) for contrast in contrasts),
    )
