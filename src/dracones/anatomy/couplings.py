"""What every coupling predicts: its shift, scale and activation as images, and how well it guesses the unseen."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from dracones.anatomy.estimates import mean_estimate
from dracones.anatomy.figures import image_grid, line, new_figure, signed_limit
from dracones.anatomy.finding import DRAWN, Finding, Row
from dracones.anatomy.latents import row_correlation
from dracones.anatomy.needs import needs_couplings
from dracones.anatomy.sides import NORMAL, checked_sides, device_of, evaluating, evenly
from dracones.densities import Density, FlowDensity
from dracones.flows import AffineCoupling, ChannelMixing, Coupling, TraceStep
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
    sharpness: Mapping[str, Estimate]
    """Of −t: squared difference of neighbouring changed values over twice their variance: 0 smooth, 1 white noise."""


@dataclass(frozen=True)
class Couplings(Finding):
    """Every coupling's prediction of the values it changes, on normal and other images."""

    title: ClassVar[str] = "How well each coupling guesses what it cannot see"
    look_for: ClassVar[str] = (
        "−t is a coupling's prediction of the values it changes from those it reads. If the lines of the other "
        "sets lie as high as the normal images', the coupling guesses by local smoothness, which any picture has, "
        "and gives any smooth picture a large volume term. A flow that had learnt what the images show would fail "
        "on the others. In the pictures each coupling has one scale, taken from the normal images: what is paler "
        "there is smaller than on normal images. Under horizontal masks −t sharpens from the first couplings, which "
        "can only guess a blur, to the later ones, which read what earlier ones wrote."
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
    mixed: bool
    """Whether channels are mixed between couplings: the pictures of −t and the activation then have the mixing undone,
    and s is spread evenly over the pixels of its position."""
    sharpening: Mapping[str, Estimate]
    """Sharpness of −t in the last two couplings less that in the first two."""

    def rows(self) -> list[Row]:
        """One row a coupling and set."""
        return [
            {
                "coupling": f"{number}: {layer.name}",
                "set": name,
                "correlation of −t": layer.correlation[name],
                "unexplained share": layer.unexplained[name],
                "log-scale (nats)": layer.log_scale[name],
                "sharpness of −t": layer.sharpness[name],
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
        chosen = self.chosen(most)
        by_row = {"−t": self.predictions, "s": self.scales, "activation": self.activations}
        rows: list[tuple[str, list[Tensor | None], list[float | None]]] = []
        for name, image in self.images.items():
            for what, found in by_row.items():
                shown = [found[name][index] for index in chosen]
                first = image if what == "−t" else None
                label = f"{name}\n{what}" if what == "−t" else what
                rows.append((label, [first, *shown], [None, *(self.limit(found, index) for index in chosen)]))
        return image_grid(rows, titles=["image", *(f"coupling {index + 1}" for index in chosen)])

    def chosen(self, most: int) -> list[int]:
        """At most so many couplings, evenly chosen."""
        count = min(most, len(self.layers))
        return sorted({round(place * (len(self.layers) - 1) / max(count - 1, 1)) for place in range(count)})

    def limit(self, pictures: Mapping[str, tuple[Tensor, ...]], index: int) -> float:
        """The colour scale of a coupling, from the normal image alone: one wild set would bleach the others."""
        return signed_limit(pictures[NORMAL][index].mean(0))

    def in_words(self) -> list[str]:
        """What is to be known about the pictures, and how −t sharpens."""
        said = (
            ["1×1 convolutions mix the channels between couplings; it is undone in the pictures."] if self.mixed else []
        )
        for name, gain in self.sharpening.items():
            how = "sharper than" if gain.low > 0 else "smoother than" if gain.high < 0 else "about as sharp as"
            said.append(f"On {name} images −t is {how} at the start in the last couplings ({gain.value:+.2f}).")
        return said


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
    mixed = mixes_channels(flow)
    layers = tuple(
        CouplingNumbers(
            name,
            level,
            *({key: mean_estimate(found[index][:, number]) for key, found in gathered.items()} for number in range(4)),
        )
        for index, (name, level) in enumerate(names)
    )
    return Couplings(
        layers,
        {name: images[0].cpu() for name, images in sides.all.items()},
        {name: tuple(_in_image(step, prediction(step)) for step in steps) for name, steps in first.items()},
        {
            name: tuple(_log_scale(step, density.image_shape, mixed=mixed) for step in steps)
            for name, steps in first.items()
        },
        {
            name: tuple(_standard(step.in_image("output", unmix=True)[0]) for step in steps)
            for name, steps in first.items()
        },
        mixed,
        {name: mean_estimate(_sharpening([layer[:, 3] for layer in found])) for name, found in gathered.items()},
    )


def mixes_channels(flow: FlowDensity) -> bool:
    """Whether a picture of the flow's values must undo 1×1 convolutions or the like before it shows a pixel's own."""
    return any(isinstance(layer, ChannelMixing) for layer in flow.flow.modules())


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
    """[B, 4]: correlation, unexplained share, log-scale, sharpness of the prediction."""
    guess, truth = changed(step, prediction(step)).double(), changed(step, step.input).double()
    spread = (truth - truth.mean(1, keepdim=True)).square().mean(1)
    error = (truth - guess).square().mean(1)
    # A constant picture has nothing to explain: relative to the smallest spread that dequantisation leaves.
    unexplained = error / spread.clamp(min=1e-6)
    found = [row_correlation(guess, truth), unexplained, step.log_det.double(), _sharpness(step)]
    return torch.stack(found, 1).cpu()


def _sharpness(step: TraceStep) -> Tensor:
    """[B]: ½ E(a − b)² / variance over neighbouring predicted values a, b; those of a checkerboard are two apart."""
    guess, mask = prediction(step).double(), step.layer.get_buffer("changes")
    if guess.dim() != 4:
        raise ValueError("sharpness: a prediction without positions has no neighbours")
    inside = (mask if mask.dim() == 3 else mask[:, None, None]).expand(guess.shape[1:])
    values = guess[:, inside]
    spread = 2 * values.var(1, correction=0)
    for apart in (1, 2):
        pairs = [
            (guess[..., apart:], guess[..., :-apart], inside[..., apart:] & inside[..., :-apart]),
            (guess[..., apart:, :], guess[..., :-apart, :], inside[..., apart:, :] & inside[..., :-apart, :]),
        ]
        squares = [(first - second).square()[:, both] for first, second, both in pairs]
        if any(each.shape[1] for each in squares):
            return torch.where(spread > 1e-12, torch.cat(squares, 1).mean(1) / spread.clamp(min=1e-12), 0.0)
    return torch.zeros(len(guess), dtype=torch.float64, device=guess.device)


def _sharpening(found: list[Tensor]) -> Tensor:
    """Per image the mean sharpness of the last two couplings less that of the first two."""
    ends = min(2, len(found))
    return torch.stack(found[-ends:]).mean(0) - torch.stack(found[:ends]).mean(0)


def _in_image(step: TraceStep, values: Tensor) -> Tensor:
    """What a coupling writes, in the pixels' own channels: mixed ones would show no picture."""
    return step.placed(values, unmix=True)[0].detach().cpu()


def _log_scale(step: TraceStep, shape: tuple[int, int, int], *, mixed: bool) -> Tensor:
    """s in pixel layout; where channels are mixed no pixel owns a scale: each has a share of its position's sum."""
    if step.s is None:
        return torch.zeros(shape)
    if not mixed:
        return step.placed(step.s)[0].cpu()
    size = step.input.shape[2] * step.input.shape[3]
    share = step.s[:1].sum(1, keepdim=True) * size / math.prod(shape)
    return F.interpolate(share, shape[1:], mode="nearest")[0].expand(shape).cpu()


def _standard(values: Tensor) -> Tensor:
    values = values.detach().cpu()
    return (values - values.mean()) / values.std().clamp(min=1e-9)
