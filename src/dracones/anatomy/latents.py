"""Latent images: what a flow sends to its base distribution, laid back over the pixels it came from."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dracones.anatomy.estimates import mean_estimate
from dracones.anatomy.figures import image_grid
from dracones.anatomy.finding import DRAWN, Finding, Row, without_empty
from dracones.anatomy.needs import needs_flow
from dracones.anatomy.sides import checked_sides, device_of, evaluating, evenly
from dracones.densities import Density, FlowDensity
from dracones.metrics import Estimate

DRAWS = 40
"""Dequantisation draws over which a latent image is averaged (the authors' code)."""
SHOWN = 2.0
"""Latents are drawn from −2 to 2, clipped (the authors' code): a standard normal's 95 %."""
Levels = tuple[Tensor, ...]
_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class LatentNumbers:
    """What the latents of one set look like; over its images, with 95 % intervals. A standard normal has 1, 0, 0."""

    variance: Estimate
    """Mean square of the latents of an image."""
    neighbours: Estimate
    """Correlation of horizontally and vertically neighbouring latents: the structure that is left."""
    likeness: Estimate
    """Absolute correlation of the latent image with the image itself."""
    neighbours_averaged: Estimate
    """``neighbours`` in the mean over dequantisation draws, where the noise is gone."""
    outline: Estimate
    """Correlation of neighbouring *magnitudes* in that mean: where the picture shows as a patch of large latents."""
    neighbours_train_mode: Estimate | None
    """``neighbours`` with BatchNorm in train mode; None for a flow without BatchNorm."""


@dataclass(frozen=True)
class Latents(Finding):
    """Latent images of each set, and how much of the picture is left in them."""

    title: ClassVar[str] = "What is left of the picture in the latents"
    look_for: ClassVar[str] = (
        "Latents of normal images should be white noise. Outlines of the picture that show in them, above all in "
        "the mean over dequantisation draws, mean that the flow passes the image through pixel by pixel instead of "
        "knowing what it shows; then other pictures pass just as well. One channel, clipped to [−2, 2]."
    )

    numbers: Mapping[str, LatentNumbers]
    draws: int
    images: Mapping[str, Tensor] = field(metadata=DRAWN, repr=False)
    """[n, C, H, W] in [0, 1]."""
    latents: Mapping[str, Tensor] = field(metadata=DRAWN, repr=False)
    """[n, C, H, W], each latent at the pixel it came from; where channels were mixed, with the mixing undone."""
    averaged: Mapping[str, Tensor] = field(metadata=DRAWN, repr=False)
    """The mean latent image over dequantisation draws."""
    train_mode: Mapping[str, Tensor] | None = field(metadata=DRAWN, repr=False)
    """With BatchNorm in train mode; None for a flow without BatchNorm."""

    def rows(self) -> list[Row]:
        """One row a set."""
        rows: list[Row] = [
            {
                "set": name,
                "variance (1)": found.variance,
                "neighbours (0)": found.neighbours,
                f"of {self.draws} draws": found.neighbours_averaged,
                "outline (0)": found.outline,
                "in train mode": found.neighbours_train_mode,
                "likeness (0)": found.likeness,
            }
            for name, found in self.numbers.items()
        ]
        return without_empty(rows)

    def figure(self) -> Figure:
        """A column an image: the picture, its latents, their mean over draws, and in train mode."""
        shown = [(name, index) for name, images in self.images.items() for index in _spread(len(images))]
        rows: list[tuple[str, list[Tensor | None], float | None]] = [
            ("image", [self.images[name][index] for name, index in shown], None)
        ]
        for name, latents in self.layers().items():
            rows.append((name.replace(" ", "\n", 1), [latents[key][index] for key, index in shown], SHOWN))
        return image_grid(rows, titles=[name if index == 0 else "" for name, index in shown])

    def layers(self) -> dict[str, dict[str, Tensor]]:
        """What is drawn, by name: set to [n, 1, H, W], the last channel, as the authors plot it."""
        found = {"latents": self.latents, f"mean of {self.draws} draws": self.averaged}
        if self.train_mode is not None:
            found["BatchNorm in train mode"] = self.train_mode
        return {name: {key: each[:, -1:] for key, each in latents.items()} for name, latents in found.items()}


def latent_images(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    draws: int = DRAWS,
    count: int = 32,
    seed: int = 0,
) -> Latents:
    """Latents of some images of each set in pixel layout: as they are, averaged over draws, in train mode.

    Args:
        density: a flow.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        draws: dequantisation draws to average over.
        count: images of each set, which are also the batch whose statistics BatchNorm uses in train mode.
        seed: of the draws.

    Raises:
        UnsupportedError: a density without latents in pixel layout (the message names those that have them).
        ValueError: shapes that differ from the density's.

    Reference:
        Kirichenko, Izmailov, Wilson (2020), section 5 and figure 4; their code averages 40 draws.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> found = latent_images(density, torch.rand(4, 1, 8, 8), {"black": torch.zeros(4, 1, 8, 8)}, draws=2)
        >>> found.latents["black"].shape, found.train_mode
        (torch.Size([4, 1, 8, 8]), None)
    """
    flow = needs_flow(density, "the analysis of latents")
    sides = checked_sides(density, normal, others)
    chosen = {name: evenly(images, count) for name, images in sides.all.items()}
    with torch.no_grad(), evaluating(flow):
        levels = {name: _latents(flow, images) for name, images in chosen.items()}
        means = {name: _averaged(flow, images, draws, seed) for name, images in chosen.items()}
        batchwise = _in_train_mode(flow, chosen)
        latents, averaged = (_laid(flow, each) for each in (levels, means))
        train_mode = None if batchwise is None else _laid(flow, batchwise)
        shown, shown_means = (_laid(flow, each, unmix=True) for each in (levels, means))
        shown_batchwise = None if batchwise is None else _laid(flow, batchwise, unmix=True)
    numbers = {}
    for name, images in chosen.items():
        numbers[name] = LatentNumbers(
            mean_estimate(latents[name].square().flatten(1).mean(1)),
            mean_estimate(neighbour_correlation(latents[name])),
            mean_estimate(_likeness(latents[name], images)),
            mean_estimate(neighbour_correlation(averaged[name])),
            mean_estimate(neighbour_correlation(averaged[name].abs())),
            None if train_mode is None else mean_estimate(neighbour_correlation(train_mode[name])),
        )
    return Latents(numbers, draws, chosen, shown, shown_means, shown_batchwise)


def neighbour_correlation(images: Tensor) -> Tensor:
    """Correlation of horizontally and vertically neighbouring values, per image [B]; zero for white noise.

    >>> stripes = torch.tensor([0.0, 1.0]).repeat(1, 1, 1, 4)
    >>> round(neighbour_correlation(stripes).item(), 3)
    -1.0
    """
    pairs = []
    if images.shape[3] > 1:
        pairs.append((images[..., :-1].flatten(1), images[..., 1:].flatten(1)))
    if images.shape[2] > 1:
        pairs.append((images[..., :-1, :].flatten(1), images[..., 1:, :].flatten(1)))
    if not pairs:
        raise ValueError("neighbour correlation: images of one pixel have no neighbours")
    first, second = (torch.cat(sides, 1) for sides in zip(*pairs, strict=True))
    return row_correlation(first, second)


def row_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of corresponding rows: [B, N] and [B, N] to [B]; zero where a row is constant."""
    first, second = first.double(), second.double()
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    scale = (first.square().sum(1) * second.square().sum(1)).sqrt()
    return torch.where(scale > 1e-12, (first * second).sum(1) / scale.clamp(min=1e-12), torch.zeros_like(scale))


def _spread(count: int) -> list[int]:
    """Three of the images at most, evenly spaced."""
    return sorted({0, count // 2, count - 1})


def _latents(flow: FlowDensity, images: Tensor, generator: torch.Generator | None = None) -> Levels:
    return flow.encode(images.to(device_of(flow)), generator=generator)


def _laid(flow: FlowDensity, found: Mapping[str, Levels], *, unmix: bool = False) -> dict[str, Tensor]:
    """Each set's latents side by side over the pixels."""
    return {name: flow.flow.latents_as_image(levels, unmix=unmix).cpu() for name, levels in found.items()}


def _averaged(flow: FlowDensity, images: Tensor, draws: int, seed: int) -> Levels:
    generator = torch.Generator().manual_seed(seed)
    every = [_latents(flow, images, generator) for _ in range(draws)]
    return tuple(torch.stack(level).mean(0) for level in zip(*every, strict=True))


def _in_train_mode(flow: FlowDensity, chosen: Mapping[str, Tensor]) -> dict[str, Levels] | None:
    if not any(isinstance(layer, _NORMALISATIONS) for layer in flow.modules()):
        return None
    # A copy: running statistics would move, and with them every later score.
    moved = copy.deepcopy(flow)
    for layer in moved.modules():
        if isinstance(layer, _NORMALISATIONS):
            layer.train()
    return {name: _latents(moved, images) for name, images in chosen.items()}


def _likeness(latents: Tensor, images: Tensor) -> Tensor:
    return row_correlation(latents.flatten(1), images.flatten(1)).abs()
