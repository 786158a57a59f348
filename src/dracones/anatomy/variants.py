"""RealNVPs that differ in what a coupling may look at, each trained alike: the material of `inductive_bias`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dracones import densities
from dracones.densities import Density
from dracones.training import Progress, TrainingConfig, TrainingReport, train

MASKS = ("checkerboard", "horizontal", "cycle")
BOTTLENECKS = (10, 30, 100)
TRAINING = TrainingConfig(
    max_steps=20_000,
    batch_size=32,
    learning_rate=1e-3,
    clip_norm=100.0,
    validate_steps=500,
    patience=4,
    min_improvement=0.005,
)
"""Until the held-out images have gained less than .005 bits/dim over 2,000 steps."""


@dataclass(frozen=True)
class Variant:
    """A RealNVP of couplings at full resolution, all of one kind of mask.

    >>> Variant("l = 10", {"masks": "checkerboard", "bottleneck": 10}).file(seed=1)
    'l-10-seed1'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def file(self, *, seed: int) -> str:
        """What its file is called, without suffix."""
        return "-".join(self.name.replace("=", " ").split()) + f"-seed{seed}"


def variants(masks: Sequence[str] = MASKS, bottlenecks: Sequence[int] = BOTTLENECKS) -> tuple[Variant, ...]:
    """One variant a mask, then checkerboards whose networks pass what they read through l numbers.

    >>> [variant.name for variant in variants(("cycle",), (30,))]
    ['cycle', 'l = 30']
    """
    plain = [Variant(kind, {"masks": kind}) for kind in masks]
    return (*plain, *(Variant(f"l = {size}", {"masks": "checkerboard", "bottleneck": size}) for size in bottlenecks))


def trained(
    variant: Variant,
    images: Tensor,
    held_out: Tensor,
    config: TrainingConfig,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    **size: Any,
) -> tuple[Density, TrainingReport]:
    """A variant, trained on images [N, C, H, W] in [0, 1] until ``config`` says so; in eval mode.

    With a ``folder`` the run is kept there: a killed one goes on, a finished one is read back. ``size`` are options of
    the network (hidden, blocks, couplings).
    """
    shape = tuple(images.shape[1:])
    density = densities.create("realnvp", image_shape=shape, seed=seed, **{**size, **variant.options})
    checkpoint = None if folder is None else Path(folder) / f"{variant.file(seed=seed)}.checkpoint"
    chosen = config.model_copy(update={"seed": seed})
    report = train(density, images, chosen, validation=held_out, checkpoint=checkpoint, progress=progress)
    return density.eval(), report
