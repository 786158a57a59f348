"""What every coupling predicts: its shift, scale and activation as images, and how well it guesses the unseen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from dracones.anatomy.estimates import mean_estimate
from dracones.anatomy.figures import image_grid, line, new_figure, signed_limit
from dracones.anatomy.finding import DRAWN, Finding, Row
from dracones.anatomy.latents import row_correlation
from dracones.anatomy.needs import needs_couplings
from dracones.anatomy.sides import checked_sides, device_of, evaluating, evenly
from dracones.densities import Density, FlowDensity
from dracones.flows import AffineCoupling, Coupling, TraceStep
from dracones.metrics import Estimate
from dracones.report.style import legend_above


@dataclass(frozen=True)
class CouplingNumbers:
    """One coupling on each set; means over the images with 95 % intervals."""

    name: str
    level: int
    correlation: Mapping[str, Estimate]
    """Of the prediction −t with the values it cannot see, over the changed positions of an image."""
    unexplained: Mapping[str, Estimate]
    """Squared error of the prediction over the values' own variance: 0 perfect, 1 no better than their mean."""
    log_scale: Mapping[str, Estimate]
    """Sum of s, nats: the coupling's share of log|det|."""


@dataclass(frozen=True)
class Couplings(Finding):
    """Every coupling's prediction of the values it changes, on normal and other images."""

    title: ClassVar[str] = "How well each coupling guesses what it cannot see"
    look_for: ClassVar[str] = (
        "−t is a coupling's prediction of the values it changes from those it reads. If the lines of the other "
        "sets lie as high as the normal images', the coupling guesses by local smoothness, which any picture has, "
        "and gives any smooth picture a large volume term. A flow that had learnt what the images show would fail "
        "on the others."
    )

    layers: tuple[CouplingNumbers, ...]
    images: Mapping[str, Tensor] = field(metadata=DRAWN, repr=False)
    """The first image of each set, [C, H, W]."""
    predictions: Mapping[str, tuple[Tensor, ...]] = field(metadata=DRAWN, repr=False)
    """Per layer −t of that image in pixel layout, zero where nothing is changed."""
    scales: Mapping[str, tuple[Tensor, ...]] = field(metadata=DRAWN, repr=False)
    """Per layer s."""
    activations: Mapping[str, tuple[Tensor, ...]] = field(metadata=DRAWN, repr=False)
    """Per layer its output, each (v − mean) / deviation."""

    def rows(self) -> list[Row]:
        """One row a coupling and set."""
        return [
            {
                "coupling": f"{number}: {layer.name}",
                "set": name,
                "correlation of −t": layer.correlation[name],
                "unexplained share": layer.unexplained[name],
                "log-scale (nats)": layer.log_scale[name],
            }
            for number, layer in enumerate(self.layers, start=1)
            for name in layer.correlation
        ]

    def figure(self) -> Figure:
        """Correlation of −t with the values it cannot see, and the log-scale, coupling by coupling."""
        figure, axes = new_figure(2, height=2.2)
        places = range(1, len(self.layers) + 1)
        for axis, what, label in (
            (axes[0], "correlation", "correlation of −t with what it cannot see"),
            (axes[1], "log_scale", "log-scale, nats"),
        ):
            for index, name in enumerate(self.images):
                found = [getattr(layer, what)[name] for layer in self.layers]
                line(axis, places, found, index=index, label=name)
            axis.set_title(label, loc="left", fontsize=9)
            axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes[1].set_xlabel("coupling")
        axes[0].set_ylim(top=1.02)
        legend_above(figure, axes[0], columns=3)
        return figure

    def image_figure(self, most: int = 6) -> Figure:
        """−t, s and activation as images, for at most ``most`` couplings evenly chosen."""
        shown_count = min(most, len(self.layers))
        step = (len(self.layers) - 1) / max(shown_count - 1, 1)
        chosen = sorted({round(place * step) for place in range(shown_count)})
        by_row = {"−t": self.predictions, "s": self.scales, "activation": self.activations}
        rows: list[tuple[str, list[Tensor | None], list[float | None]]] = []
        for name, image in self.images.items():
            for what, found in by_row.items():
                shown = [found[name][index] for index in chosen]
                # One scale for all sets, so that what is small on one looks small.
                limit = signed_limit(*[every[index].mean(0) for every in found.values() for index in chosen])
                first = image if what == "−t" else None
                label = f"{name}\n{what}" if what == "−t" else what
                rows.append((label, [first, *shown], [None, *[limit] * len(shown)]))
        return image_grid(rows, titles=["image", *(f"coupling {index + 1}" for index in chosen)])


def couplings(
    density: Density, normal: Tensor, others: Mapping[str, Tensor], *, count: int = 64, batch_size: int = 64
) -> Couplings:
    """Run every coupling on some images of each set and compare its prediction with what it could not see.

    In a coupling ``z = (x + t) exp(s)`` the flow's prediction of the changed values x is −t; where a coupling is
    written ``z = x exp(s) + t`` it is −t exp(−s). The values predicted are the coupling's input, so in the first
    couplings the (logit) pixels themselves.

    Raises:
        UnsupportedError: a density without couplings (the message names those that have them).
        ValueError: shapes that differ from the density's.

    Reference:
        Kirichenko, Izmailov, Wilson (2020), section 5, figures 3 and 5; layout and standardisation as in their
        notebooks.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=2, hidden=4, levels=1)
        >>> found = couplings(density, torch.rand(4, 1, 8, 8), {"black": torch.zeros(4, 1, 8, 8)})
        >>> [layer.name for layer in found.layers]
        ['level0/3', 'level0/6']
    """
    flow = needs_couplings(density, "the analysis of couplings")
    sides = checked_sides(density, normal, others)
    gathered: dict[str, list[Tensor]] = {}
    first: dict[str, list[TraceStep]] = {}
    with torch.no_grad(), evaluating(flow):
        for name, images in sides.all.items():
            parts = []
            for batch in evenly(images, count).split(batch_size):
                steps = list(coupling_steps(flow, batch))
                first.setdefault(name, steps)
                parts.append([_numbers(step) for step in steps])
            gathered[name] = [torch.cat(layer) for layer in zip(*parts, strict=True)]
    names = [(step.name, step.level) for step in next(iter(first.values()))]
    layers = tuple(
        CouplingNumbers(
            name,
            level,
            {key: mean_estimate(found[index][:, 0]) for key, found in gathered.items()},
            {key: mean_estimate(found[index][:, 1]) for key, found in gathered.items()},
            {key: mean_estimate(found[index][:, 2]) for key, found in gathered.items()},
        )
        for index, (name, level) in enumerate(names)
    )
    return Couplings(
        layers,
        {name: images[0].cpu() for name, images in sides.all.items()},
        {name: tuple(_in_image(step, prediction(step)) for step in steps) for name, steps in first.items()},
        {name: tuple(_in_image(step, step.s) for step in steps) for name, steps in first.items()},
        {name: tuple(_standard(step.in_image("output")[0]) for step in steps) for name, steps in first.items()},
    )


def coupling_steps(flow: FlowDensity, images: Tensor) -> Iterator[TraceStep]:
    """The trace's steps that are couplings, for 8-bit images [B, C, H, W]."""
    flow.check_images(images)
    points, _ = flow.dequantise(images.to(device_of(flow)))
    yield from (step for step in flow.flow.trace(flow.logit.encode(points)[0]) if isinstance(step.layer, Coupling))


def prediction(step: TraceStep) -> Tensor:
    """What the coupling predicts for its input at the changed positions, in the layer's own layout."""
    shift = torch.zeros_like(step.input) if step.t is None else step.t
    if step.s is not None and isinstance(step.layer, AffineCoupling) and not step.layer.shift_first:
        return -shift * torch.exp(-step.s)
    return -shift


def changed(step: TraceStep, values: Tensor) -> Tensor:
    """The values [B, n] at the positions that the step's coupling changes."""
    mask = step.layer.get_buffer("changes")
    return values[:, mask].flatten(1)


def _numbers(step: TraceStep) -> Tensor:
    """[B, 3]: correlation, unexplained share, log-scale."""
    guess, truth = changed(step, prediction(step)).double(), changed(step, step.input).double()
    spread = (truth - truth.mean(1, keepdim=True)).square().mean(1)
    error = (truth - guess).square().mean(1)
    # A constant picture has nothing to explain: relative to the smallest spread that dequantisation leaves.
    unexplained = error / spread.clamp(min=1e-6)
    return torch.stack([row_correlation(guess, truth), unexplained, step.log_det.double()], 1).cpu()


def _in_image(step: TraceStep, values: Tensor | None) -> Tensor:
    shown = torch.zeros_like(step.input) if values is None else values
    for place in step.placements:
        shown = place(shown, "zero")
    return shown[0].cpu()


def _standard(values: Tensor) -> Tensor:
    values = values.cpu()
    return (values - values.mean()) / values.std().clamp(min=1e-9)
