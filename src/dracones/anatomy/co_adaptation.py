"""Co-adaptation: what one coupling writes into one part of the image for the next to read about the other part."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from dracones.anatomy.couplings import changed, coupling_steps, prediction
from dracones.anatomy.estimates import mean_estimate
from dracones.anatomy.figures import line, new_figure
from dracones.anatomy.finding import Finding, Row
from dracones.anatomy.latents import row_correlation
from dracones.anatomy.needs import UnsupportedError, needs_couplings
from dracones.anatomy.sides import checked_sides, evaluating, evenly
from dracones.densities import Density, FlowDensity
from dracones.flows import Coupling
from dracones.metrics import Estimate
from dracones.report.style import MUTED, legend_above


@dataclass(frozen=True)
class CoAdaptationNumbers:
    """One coupling on each set; means over the images, 95 % intervals.

    Correlations are those of the prediction −t with the values it cannot see, both less their mean over the set: what
    the set's mean image tells about every image is no one's knowledge of this image.
    """

    name: str
    error: Mapping[str, Estimate]
    """Root mean square error of the prediction, in the units of the coupling's input (logit pixels at first)."""
    correlation: Mapping[str, Estimate]
    """On the images as they are."""
    smuggled: Mapping[str, Estimate]
    """On hybrids whose changed part comes from another image: what the prediction knows of a part that has nothing to
    do with the part it reads, and so can know only through earlier couplings."""


@dataclass(frozen=True)
class CoAdaptation(Finding):
    """Prediction of unseen pixels, coupling by coupling, on images and on hybrids."""

    title: ClassVar[str] = "What couplings whisper to each other"
    look_for: ClassVar[str] = (
        "Dashed: images whose hidden part was exchanged for another image's, which nothing in the visible part can "
        "tell. A dashed line above zero is information that an earlier coupling wrote into the visible part for a "
        "later one to read. It works for any picture, so other sets are predicted as well as normal ones, and "
        "their likelihood is high."
    )

    layers: tuple[CoAdaptationNumbers, ...]

    def rows(self) -> list[Row]:
        """One row a coupling and set."""
        return [
            {
                "coupling": f"{number}: {layer.name}",
                "set": name,
                "error of the prediction": layer.error[name],
                "correlation": layer.correlation[name],
                "correlation on hybrids (smuggled)": layer.smuggled[name],
            }
            for number, layer in enumerate(self.layers, start=1)
            for name in layer.error
        ]

    def figure(self) -> Figure:
        """Correlation by coupling: solid on images, dashed on hybrids."""
        figure, (axis,) = new_figure(height=3.0)
        places = range(1, len(self.layers) + 1)
        for index, name in enumerate(self.layers[0].error):
            for what, style in (("correlation", "o-"), ("smuggled", "s--")):
                found = [getattr(layer, what)[name] for layer in self.layers]
                line(axis, places, found, index=index, label=name if what == "correlation" else None, style=style)
        axis.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axis.set_xlabel("coupling")
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.set_title("correlation of −t with the pixels it cannot see", loc="left", fontsize=9)
        legend_above(figure, axis, columns=3)
        return figure


def co_adaptation(
    density: Density, normal: Tensor, others: Mapping[str, Tensor], *, count: int = 64, seed: int = 0
) -> CoAdaptation:
    """How well each coupling predicts the pixels hidden from it, on images and on hybrids of two images.

    For every coupling over pixels a hybrid is put together: the pixels that the coupling changes from one image, all
    others from another of the same set. Whatever the prediction then knows about the exchanged pixels came through
    the couplings before it. Of a flow with other layers too, only couplings at full resolution are looked at, and
    only while every coupling before them was one.

    Args:
        density: a flow with masks over pixels (RealNVP with horizontal, cycle or checkerboard masks).
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        count: images of each set.
        seed: of the exchange.

    Raises:
        UnsupportedError: a density without couplings over pixels (the message names those that have them).

    Reference:
        Kirichenko, Izmailov, Wilson (2020), section 5 ("coupling layer co-adaptation"), figure 5; the hybrids are ours.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("realnvp", "horizontal", image_shape=(1, 6, 6), couplings=2, hidden=4, blocks=1)
        >>> found = co_adaptation(density, torch.rand(8, 1, 6, 6), {"black": torch.zeros(8, 1, 6, 6)})
        >>> [layer.name for layer in found.layers]
        ['0', '1']
    """
    flow = needs_couplings(density, "the analysis of co-adaptation", spatial=True)
    sides = checked_sides(density, normal, others)
    found: dict[str, list[Tensor]] = {}
    names: list[str] = []
    with torch.no_grad(), evaluating(flow):
        for name, images in sides.all.items():
            chosen = evenly(images, count)
            names, found[name] = _of_set(flow, chosen, _derangement(len(chosen), seed))
    if not names:
        name = type(density).__name__
        raise UnsupportedError(
            f"the analysis of co-adaptation needs couplings over pixels at full resolution; this {name} squeezes first."
            ' Densities that do: realnvp (presets "horizontal", "cycle", "checkerboard8")'
        )
    layers = tuple(
        CoAdaptationNumbers(
            name,
            {key: mean_estimate(each[index][:, 0]) for key, each in found.items()},
            {key: mean_estimate(each[index][:, 1]) for key, each in found.items()},
            {key: mean_estimate(each[index][:, 2]) for key, each in found.items()},
        )
        for index, name in enumerate(names)
    )
    return CoAdaptation(layers)


def _of_set(flow: FlowDensity, images: Tensor, partner: Tensor) -> tuple[list[str], list[Tensor]]:
    """Names of the couplings, and per coupling [B, 3]: error, correlation, correlation on hybrids."""
    own = _full_resolution(flow, images)
    hybrids: dict[bytes, list[tuple[int, Tensor]]] = {}
    for index, (_, _, mask) in enumerate(own):
        hybrids.setdefault(mask.cpu().numpy().tobytes(), []).append((index, mask))
    smuggled: dict[int, Tensor] = {}
    for users in hybrids.values():
        mask = users[0][1].to(images.device)
        mixed = _full_resolution(flow, torch.where(mask, images[partner], images))
        for index, _ in users:
            guess, truth, _ = mixed[index]
            smuggled[index] = _correlation(guess, truth)
    names = [name for name, step in _named(flow, images[:1])][: len(own)]
    numbers = []
    for index, (guess, truth, _) in enumerate(own):
        error = (guess - truth).square().mean(1).sqrt()
        numbers.append(torch.stack([error, _correlation(guess, truth), smuggled[index]], 1).cpu())
    return names, numbers


def _named(flow: FlowDensity, images: Tensor) -> list[tuple[str, Coupling]]:
    return [(step.name, step.layer) for step in coupling_steps(flow, images) if isinstance(step.layer, Coupling)]


def _full_resolution(flow: FlowDensity, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(prediction, truth, mask of what is changed) of each coupling until the first that is not over whole pixels."""
    found = []
    for step in coupling_steps(flow, images):
        mask = step.layer.get_buffer("changes")
        if tuple(mask.shape) != flow.image_shape:
            break
        found.append((changed(step, prediction(step)).double(), changed(step, step.input).double(), mask))
    return found


def _correlation(guess: Tensor, truth: Tensor) -> Tensor:
    return row_correlation(guess - guess.mean(0), truth - truth.mean(0))


def _derangement(count: int, seed: int) -> Tensor:
    """For each image another one, by chance."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return partner
