"""Negative training: a flow can tell two sets apart when told to, so what it lacks is a reason, not the means."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from dracones.anatomy.decomposition import Decomposition, decompose
from dracones.anatomy.figures import histograms, new_figure
from dracones.anatomy.finding import DRAWN, Finding, Row
from dracones.anatomy.sides import NORMAL, checked_sides
from dracones.densities import Density, bits_per_dim
from dracones.metrics import Estimate
from dracones.report.style import legend_above
from dracones.training import Progress, TrainingConfig, train

FLOOR_PER_DIMENSION = -33.0
"""Nats per dimension below which the other set is low enough; the authors' −1e5 for 3,072 dimensions."""


@dataclass(frozen=True)
class NegativeTraining(Finding):
    """The likelihood's AUROC before and after, on images that were held out of the training."""

    title: ClassVar[str] = "What the same flow can do when told to"
    look_for: ClassVar[str] = (
        "Above before, below after training with the likelihood of the named set pushed down. If the sets come "
        "apart, the architecture could always tell them apart; maximum likelihood on normal images gave it no "
        "reason to. Sets that were not named show whether it has learnt more than the one lesson."
    )

    against: str
    steps: int
    before: Mapping[str, Estimate]
    """Set to AUROC of −log p."""
    after: Mapping[str, Estimate]
    bits_before: Mapping[str, Estimate]
    """Mean bits/dim of each set."""
    bits_after: Mapping[str, Estimate]
    density: Density = field(metadata=DRAWN, repr=False)
    """The trained copy; the density given is left as it was."""
    histories: tuple[Decomposition, Decomposition] = field(metadata=DRAWN, repr=False)

    def rows(self) -> list[Row]:
        """One row a set, the normal images last."""
        normal: Row = {
            "set": NORMAL,
            "named in training": "yes",
            "AUROC before": None,
            "AUROC after": None,
            "bits/dim before": self.bits_before[NORMAL],
            "bits/dim after": self.bits_after[NORMAL],
        }
        others: list[Row] = [
            {
                "set": name,
                "named in training": "yes" if name == self.against else "no",
                "AUROC before": self.before[name],
                "AUROC after": self.after[name],
                "bits/dim before": self.bits_before[name],
                "bits/dim after": self.bits_after[name],
            }
            for name in self.before
        ]
        return [*others, normal]

    def figure(self) -> Figure:
        """Histograms of log p before and after."""
        figure, axes = new_figure(2, height=1.8)
        for axis, found, when in zip(axes, self.histories, ("before", "after"), strict=True):
            values = {name: each[found.total.name] for name, each in found.values.items()}
            histograms(axis, values, label=f"log p(x) {when}, nats")
        legend_above(figure, axes[0], columns=3)
        return figure


class _TwoSides(nn.Module):
    """½ (−E_in[log p] + E_out[log p]), the second mean over those images whose log p is still above a floor."""

    def __init__(self, density: Density, floor: float) -> None:
        super().__init__()
        self.density = density
        self.floor = floor

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:
        normal, other = batch
        # One pass, as published: BatchNorm then sees both sides and cannot tell them by their statistics.
        log_prob = self.density.log_prob(torch.cat([normal, other]), generator=generator)
        inside, outside = log_prob[: len(normal)], log_prob[len(normal) :]
        still_high = outside[outside > self.floor]
        loss = bits_per_dim(inside, self.density.dimensions).mean()
        if len(still_high) == 0:
            return loss
        return 0.5 * (loss - bits_per_dim(still_high, self.density.dimensions).mean())


def negative_training(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    against: str,
    config: TrainingConfig | None = None,
    floor: float | None = None,
    held_out: float = 0.5,
    progress: Progress | None = None,
) -> NegativeTraining:
    """Train a copy to give normal images a high likelihood and one other set a low one; look at held-out images.

    Args:
        density: trained, best; it is left as it was.
        normal: images [N, C, H, W] in [0, 1]; part of them is trained on, the rest looked at.
        others: name to images of the same shape; of ``against`` part is trained on, the rest looked at.
        against: the set whose likelihood is pushed down.
        config: of the training; by default 10 epochs, batches of 32, Adam at 5e-5 as published.
        floor: log p in nats under which an image of the other set is left alone; −33 nats a dimension by default.
        held_out: share of the normal images and of ``against`` that is looked at and not trained on.
        progress: is told about every step.

    Raises:
        ValueError: ``against`` is not one of the others.

    Reference:
        Kirichenko, Izmailov, Wilson (2020), appendix B.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=4, levels=1)
        >>> x = torch.rand(16, 1, 4, 4)
        >>> config = TrainingConfig(epochs=1, batch_size=8, device="cpu")
        >>> found = negative_training(density, x, {"black": 0 * x}, against="black", config=config)
        >>> found.steps
        1
    """
    sides = checked_sides(density, normal, others)
    if against not in sides.others:
        raise ValueError(f"against={against!r} is not one of the other sets, {', '.join(sides.others)}")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: expected a share strictly between 0 and 1, got {held_out}")
    seen, looked_at = _parted(NORMAL, sides.normal, held_out)
    shown, rest = _parted(against, sides.others[against], held_out)
    tests = {**sides.others, against: rest}
    config = config or TrainingConfig(epochs=10, batch_size=32, learning_rate=5e-5, clip_norm=100.0)
    floor = FLOOR_PER_DIMENSION * density.dimensions if floor is None else floor
    before = decompose(density, looked_at, tests)
    moved = copy.deepcopy(density)
    report = train(_TwoSides(moved, floor), _paired(seen, shown), config, progress=progress)
    after = decompose(moved.eval(), looked_at, tests)
    return NegativeTraining(
        against,
        report.steps,
        before.total.auroc,
        after.total.auroc,
        _bits(before),
        _bits(after),
        moved,
        (before, after),
    )


def _parted(name: str, images: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """What is trained on and what is held out: evenly spaced, since sets often lie sorted by class."""
    steps = (torch.arange(len(images) + 1) * share + 1e-9).floor()
    held = steps.diff() > 0
    if int(held.sum()) < 2 or int((~held).sum()) < 1:
        raise ValueError(
            f"{name}: {len(images)} images are too few to hold out a share of {share:g}; at least 2 must be held out "
            "and 1 trained on"
        )
    return images[~held], images[held]


def _paired(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both of one length; the shorter one is gone through again."""
    count = max(len(first), len(second))
    return tuple(images[torch.arange(count) % len(images)] for images in (first, second))  # type: ignore[return-value]


def _bits(found: Decomposition) -> dict[str, Estimate]:
    scale = found.dimensions
    return {
        name: Estimate(*(bits_per_dim(value, scale) for value in (mean.value, mean.high, mean.low)))
        for name, mean in {NORMAL: found.total.normal, **found.total.others}.items()
    }
