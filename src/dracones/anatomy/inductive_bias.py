"""Inductive bias: the same flow with other masks and narrower networks, and what it then takes to be likely."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dracones.anatomy.estimates import auroc_estimate, mean_estimate
from dracones.anatomy.figures import Array, histograms, intervals, new_figure
from dracones.anatomy.finding import DRAWN, Finding, Row, without_empty
from dracones.anatomy.sides import NORMAL, Sides, checked_sides, evenly, statistics_of
from dracones.anatomy.variants import BOTTLENECKS, MASKS, TRAINING, Variant, trained, variants
from dracones.densities import Density, bits_per_dim
from dracones.metrics import Estimate
from dracones.report.style import legend_above
from dracones.training import Progress, TrainingConfig, TrainingReport

_HELD_OUT = 1000


@dataclass(frozen=True)
class VariantRun:
    """One variant of one seed: how it was trained, and what it takes each set to be."""

    variant: str
    seed: int
    parameters: int
    steps: int
    images_seen: int
    curve: tuple[tuple[int, float], ...]
    """(step, bits/dim of the held-out images) at every reading."""
    bits_per_dim: Mapping[str, Estimate]
    """Set to mean bits/dim; the normal images are those given to be looked at."""
    auroc: Mapping[str, Estimate]
    """Other set to the AUROC of −log p against the normal images."""

    @property
    def last_gain(self) -> float:
        """Bits/dim that the held-out images gained between the last two readings; near zero: training had ended."""
        return self.curve[-2][1] - self.curve[-1][1] if len(self.curve) > 1 else float("nan")


@dataclass(frozen=True)
class InductiveBias(Finding):
    """Bits/dim and the likelihood's AUROC of every variant, seed by seed."""

    title: ClassVar[str] = "What a coupling may look at decides what is likely"
    look_for: ClassVar[str] = (
        "Every flow is trained alike on the same images; only what a coupling reads differs. A checkerboard lets it "
        "guess a pixel from its neighbours, which works for any smooth picture. Horizontal masks and the cycle take "
        "the neighbours away, a bottleneck of l numbers keeps the networks from passing details through. The "
        "published finding: the likelihood of the other sets falls from checkerboard to horizontal to cycle, and with "
        "smaller l, so that their AUROC rises."
    )

    runs: tuple[VariantRun, ...]
    chains: tuple[tuple[str, ...], ...]
    """Variants in the order in which the AUROC should rise: by mask, by bottleneck."""
    log_probs: Mapping[str, Mapping[str, Array]] = field(metadata=DRAWN, repr=False)
    """Variant to set to log p of every image, first seed."""
    densities: Mapping[str, Density] = field(metadata=DRAWN, repr=False)
    """Variant to its density, first seed."""

    def of(self, variant: str) -> list[VariantRun]:
        """All seeds of a variant."""
        return [run for run in self.runs if run.variant == variant]

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the other sets."""
        return tuple(self.runs[0].auroc)

    def rows(self) -> list[Row]:
        """One row a variant: means over the seeds, with the intervals of the test sets beside the seeds' spread."""
        rows: list[Row] = []
        for variant in self.log_probs:
            runs = self.of(variant)
            row: Row = {
                "variant": variant,
                "seeds": len(runs),
                "parameters": runs[0].parameters,
                "bits/dim": _mean([run.bits_per_dim[NORMAL] for run in runs]),
                "last gain": statistics.mean(run.last_gain for run in runs),
            }
            for name in self.others:
                areas = [run.auroc[name] for run in runs]
                row[f"{name}, bits/dim"] = _mean([run.bits_per_dim[name] for run in runs])
                row[f"{name}, AUROC"] = _mean(areas)
                row[f"{name}, seeds ±"] = statistics.stdev(each.value for each in areas) if len(areas) > 1 else None
            rows.append(row)
        return without_empty(rows)

    def in_words(self) -> list[str]:
        """Whether the published order is seen, a sentence a chain and set."""
        return [self._told(chain, name) for chain in self.chains for name in self.others]

    def _told(self, chain: tuple[str, ...], name: str) -> str:
        areas = [[run.auroc[name] for run in self.of(variant)] for variant in chain]
        listed = ", ".join(f"{variant} {_mean(each).value:.3f}" for variant, each in zip(chain, areas, strict=True))
        if all(_rises(earlier, later) for earlier, later in itertools.pairwise(areas)):
            verdict = "it rises at every step: seen"
        elif _rises(areas[0], areas[-1]):
            verdict = "it rises from the first to the last, not at every step: seen in part"
        else:
            verdict = "it does not rise by more than chance: not seen"
        return f"AUROC of {name}: {listed}; {verdict}."

    def figure(self) -> Figure:
        """Histograms of log p, a panel a variant, all on their own scale."""
        figure, axes = new_figure(len(self.log_probs), height=1.3)
        for axis, (variant, values) in zip(axes, self.log_probs.items(), strict=True):
            histograms(axis, values, label="")
            axis.set_title(f"{variant}: log p(x), nats", loc="left", fontsize=9)
        legend_above(figure, axes[0], columns=3)
        return figure

    def auroc_figure(self) -> Figure:
        """AUROC of the likelihood of every variant with its interval, means over the seeds."""
        figure, (axis,) = new_figure(height=0.5 + 0.35 * len(self.log_probs))
        values = {
            name: [_mean([run.auroc[name] for run in self.of(variant)]) for variant in self.log_probs]
            for name in self.others
        }
        intervals(axis, list(self.log_probs), values, label="AUROC of the likelihood")
        axis.set_xlim(-0.02, 1.02)
        legend_above(figure, axis, columns=3)
        return figure


def inductive_bias(
    train: Tensor,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    masks: Sequence[str] = MASKS,
    bottlenecks: Sequence[int] = BOTTLENECKS,
    seeds: int = 1,
    held_out: Tensor | None = None,
    config: TrainingConfig | None = None,
    couplings: int = 8,
    hidden: int = 16,
    blocks: int = 2,
    folder: str | Path | None = None,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> InductiveBias:
    """Train one RealNVP per mask and per bottleneck alike, and see which sets each takes to be likely.

    Args:
        train: images [N, C, H, W] in [0, 1] to train on.
        normal: images of the same kind, not trained on.
        others: name to images of the same shape.
        masks: of ``checkerboard``, ``horizontal`` (halves in turn) and ``cycle`` (quadrant to quadrant).
        bottlenecks: numbers l through which a checkerboard flow's networks pass what they read.
        seeds: how often each is trained, seeds 0, 1, ...
        held_out: images by which training is judged; by default a tenth of ``train``, 1,000 at most, evenly spaced,
            which is then not trained on.
        config: of every training; by default until the held-out images gain less than .005 bits/dim in 2,000 steps,
            which on 28x28 takes hours on one core.
        couplings: of each flow.
        hidden: channels of its residual networks.
        blocks: residual blocks of its networks.
        folder: keeps the runs: a killed one goes on, a finished one is read back.
        batch_size: images at a time when scoring.
        progress: is told about every step of the run in hand.

    Raises:
        ValueError: shapes that differ, a mask that is not known, sides that cannot be cut into quadrants.

    Reference:
        Kirichenko, Izmailov, Wilson (2020), section 6, figure 6, and appendix on the bottleneck.

    Example:
        >>> x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> short = TrainingConfig(max_steps=2, batch_size=8, validate_steps=1, device="cpu")
        >>> few = {"masks": ("checkerboard", "cycle"), "bottlenecks": (), "config": short, "hidden": 4, "blocks": 1}
        >>> found = inductive_bias(x[:30], x[30:], {"black": 0 * x[30:]}, **few)
        >>> [run.variant for run in found.runs], found.chains
        (['checkerboard', 'cycle'], (('checkerboard', 'cycle'),))
    """
    if seeds < 1:
        raise ValueError(f"seeds: expected at least 1, got {seeds}")
    every = variants(masks, bottlenecks)
    if not every:
        raise ValueError("nothing to compare: name at least one mask or bottleneck")
    if held_out is None:
        train, held_out = _parted(train)
    size = {"couplings": couplings, "hidden": hidden, "blocks": blocks}
    runs: list[VariantRun] = []
    log_probs: dict[str, dict[str, Array]] = {}
    densities: dict[str, Density] = {}
    for seed in range(seeds):
        for variant in every:
            density, report = trained(
                variant, train, held_out, config or TRAINING, seed=seed, folder=folder, progress=progress, **size
            )
            sides = checked_sides(density, normal, others)
            found = _log_probs(density, sides, batch_size)
            runs.append(_run(variant, seed, density, report, found))
            log_probs.setdefault(variant.name, found)
            densities.setdefault(variant.name, density)
    return InductiveBias(tuple(runs), _chains(masks, bottlenecks), log_probs, densities)


def _chains(masks: Sequence[str], bottlenecks: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Both published orders, as far as there are variants: masks as `MASKS` has them, ever narrower bottlenecks."""
    by_mask = tuple(kind for kind in MASKS if kind in masks)
    wide_to_narrow = tuple(f"l = {size}" for size in sorted(bottlenecks, reverse=True))
    by_size = (*(("checkerboard",) if "checkerboard" in masks else ()), *wide_to_narrow)
    return tuple(chain for chain in (by_mask, by_size if wide_to_narrow else ()) if len(chain) > 1)


def _parted(images: Tensor) -> tuple[Tensor, Tensor]:
    count = min(_HELD_OUT, len(images) // 10)
    if count < 2:
        raise ValueError(f"train: {len(images)} images are too few to hold out a tenth of; give at least 20")
    held = torch.zeros(len(images), dtype=torch.bool)
    held[evenly(torch.arange(len(images)), count)] = True
    return images[~held], images[held]


def _log_probs(density: Density, sides: Sides, batch_size: int) -> dict[str, Array]:
    found = statistics_of(density, sides, ("log_prob",), batch_size=batch_size)
    return {name: each["log_prob"] for name, each in found.items()}


def _run(
    variant: Variant, seed: int, density: Density, report: TrainingReport, found: Mapping[str, Array]
) -> VariantRun:
    curve = [(each.step, each.validation_loss) for each in report.history if each.validation_loss is not None]
    bits = {name: bits_per_dim(torch.from_numpy(each), density.dimensions).numpy() for name, each in found.items()}
    return VariantRun(
        variant.name,
        seed,
        sum(parameter.numel() for parameter in density.parameters()),
        report.steps,
        report.images,
        tuple(curve),
        {name: mean_estimate(each) for name, each in bits.items()},
        {name: auroc_estimate(bits[NORMAL], each) for name, each in bits.items() if name != NORMAL},
    )


def _rises(earlier: Sequence[Estimate], later: Sequence[Estimate]) -> bool:
    """Whether an AUROC rises by more than two standard errors, of the seeds and of the test sets together."""
    step = _mean(later).value - _mean(earlier).value
    return step > 2 * math.sqrt(_squared_error(earlier) + _squared_error(later))


def _squared_error(estimates: Sequence[Estimate]) -> float:
    mean, count = _mean(estimates), len(estimates)
    seeds = statistics.variance(each.value for each in estimates) / count if count > 1 else 0.0
    return seeds + ((mean.high - mean.low) / 4) ** 2


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over seeds of the values and of the ends of their intervals, which are those of the test sets."""
    return Estimate(*(statistics.mean(each) for each in zip(*estimates, strict=True)))
