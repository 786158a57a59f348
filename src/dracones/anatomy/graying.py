"""Graying: the likelihood of the same images as their contrast shrinks, towards mid-gray and towards their mean."""

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


def grayed(images: Tensor, contrast: float, *, gray: float | Tensor = 0.5) -> Tensor:
    """``gray + contrast · (image − gray)`` on the 256 levels; ``gray`` may be an image [C, H, W].

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
class Fading:
    """What happens on the way to one target."""

    bits_per_dim: Mapping[str, tuple[Estimate, ...]]
    """Set to one estimate a contrast; smaller is likelier."""
    auroc: Mapping[str, tuple[Estimate, ...]]
    """Of −log p, each set at each contrast against the normal images at full contrast."""
    change: Estimate
    """Bits/dim of the normal images at the last contrast less those at the first, image by image."""
    examples: tuple[Tensor, ...] = field(metadata=DRAWN, repr=False)
    """One normal image at every contrast."""


@dataclass(frozen=True)
class Graying(Finding):
    """Bits per dimension of every set at every contrast, and whether grayed images pass for more normal than normal."""

    title: ClassVar[str] = "Likelihood against contrast"
    look_for: ClassVar[str] = (
        "A line that falls from right to left: the paler the same images, the likelier. Where the normal images' "
        "own line falls below its right end, a washed-out copy is likelier than the original: the likelihood "
        "measures contrast. A line towards mid-gray may rise where one towards the data's mean falls: mid-gray is "
        "not where the images lie."
    )

    contrasts: tuple[float, ...]
    towards: Mapping[str, Fading]
    """Target to what happens on the way there: mid-gray (as published) and the mean of the normal images, which is
    where the second-order argument expands."""

    def rows(self) -> list[Row]:
        """One row a target, set and contrast."""
        return [
            {"towards": target, "set": name, "contrast": contrast, "bits/dim": bits, "AUROC against normal": area}
            for target, found in self.towards.items()
            for name in found.bits_per_dim
            for contrast, bits, area in zip(self.contrasts, found.bits_per_dim[name], found.auroc[name], strict=True)
        ]

    def in_words(self) -> list[str]:
        """What happened to the normal images, a sentence a target."""
        return [_told(target, self.contrasts, found) for target, found in self.towards.items()]

    def figure(self) -> Figure:
        """Bits per dimension by contrast, a panel a target."""
        figure, axes = new_figure(len(self.towards), height=2.3)
        for axis, (target, fading) in zip(axes, self.towards.items(), strict=True):
            for index, (name, found) in enumerate(fading.bits_per_dim.items()):
                line(axis, self.contrasts, found, index=index, label=name)
            axis.set_title(f"towards {target}: bits/dim (less is likelier)", loc="left", fontsize=9)
        axes[-1].set_xlabel("contrast")
        legend_above(figure, axes[0], columns=3)
        return figure

    def image_figure(self) -> Figure:
        """One normal image at every contrast, a row a target."""
        rows = [(f"towards\n{target}", found.examples, None) for target, found in self.towards.items()]
        return image_grid(rows, titles=[f"{contrast:g}" for contrast in self.contrasts])


def graying(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    contrasts: Sequence[float] = CONTRASTS,
    gray: float = 0.5,
    batch_size: int = 256,
) -> Graying:
    """Shrink the contrast of every set towards mid-gray, and towards the mean normal image, and follow the likelihood.

    Args:
        density: any.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        contrasts: factors in [0, 1]; 1 leaves the images as they are, 0 makes them all the target.
        gray: the gray that they shrink towards first.
        batch_size: images at a time.

    Reference:
        Nalisnick et al. (2019), section 5, figure 6.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> import torch
        >>> x = torch.rand(5, 1, 8, 8)
        >>> found = graying(density, x, {"same": x}, contrasts=(1.0, 0.0)).towards["mid-gray"]
        >>> found.bits_per_dim["normal"][1].value == found.bits_per_dim["same"][1].value
        True
    """
    sides = checked_sides(density, normal, others)
    published = "mid-gray" if gray == 0.5 else f"gray {gray:g}"
    targets: dict[str, float | Tensor] = {published: gray, "data mean": sides.normal.mean(0)}
    full = statistics_of(density, Sides(sides.normal, {}), ("log_prob",), batch_size=batch_size)[NORMAL]["log_prob"]
    towards = {
        name: _faded(density, sides, tuple(contrasts), target, -full, batch_size) for name, target in targets.items()
    }
    return Graying(tuple(contrasts), towards)


def _faded(
    density: Density,
    sides: Sides,
    contrasts: tuple[float, ...],
    target: float | Tensor,
    reference: np.ndarray,
    batch_size: int,
) -> Fading:
    values: dict[str, list[np.ndarray]] = {name: [] for name in sides.all}
    for contrast in contrasts:
        shrunk = {name: grayed(images, contrast, gray=target) for name, images in sides.all.items()}
        treated = Sides(shrunk.pop(NORMAL), shrunk)
        for name, found in statistics_of(density, treated, ("log_prob",), batch_size=batch_size).items():
            values[name].append(found["log_prob"])
    scale = -1 / (density.dimensions * float(np.log(2)))
    return Fading(
        {name: tuple(mean_estimate(each * scale) for each in found) for name, found in values.items()},
        {name: tuple(auroc_estimate(reference, -each) for each in found) for name, found in values.items()},
        mean_estimate((values[NORMAL][-1] - values[NORMAL][0]) * scale),
        tuple(grayed(sides.normal[0], contrast, gray=target) for contrast in contrasts),
    )


def _told(target: str, contrasts: tuple[float, ...], found: Fading) -> str:
    bits = [each.value for each in found.bits_per_dim[NORMAL]]
    start, end = f"{bits[0]:.2f} bits/dim at contrast {contrasts[0]:g}", f"{bits[-1]:.2f} at {contrasts[-1]:g}"
    if found.change.low > 0:
        told = f"Towards {target} the normal images lose likelihood: from {start} to {end}"
        why = "being paler does not make them likelier"
    elif found.change.high < 0:
        told = f"Towards {target} the normal images gain likelihood: from {start} to {end}"
        why = "a washed-out copy is likelier than the original"
    else:
        told = f"Towards {target} the normal images end as likely as they began, from {start} to {end}"
        why = "contrast alone decides nothing"
    least = bits.index(min(bits))
    if 0 < least < len(bits) - 1:
        return f"{told}, by way of {bits[least]:.2f} at {contrasts[least]:g}, where they are likeliest."
    return f"{told}; {why}."
