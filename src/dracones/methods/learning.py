"""What a method learns from: disjoint parts of the normal images, and runs of the training loop."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from dracones.images import ImageCollection
from dracones.training import Loss, Progress, TrainingConfig


@dataclass(frozen=True)
class Parts:
    """Three disjoint parts of one collection: what trains, what stops training and fits rules, what calibrates."""

    train: ImageCollection
    validation: ImageCollection
    calibration: ImageCollection


class Trainee(NamedTuple):
    """One run of the training loop: a module with a ``training_loss``, and what it learns from.

    ``number`` counts the runs of one fit; it tells their seeds and checkpoints apart. ``loss(module, batch,
    generator)`` stands in for the module's own.
    """

    number: int
    module: nn.Module
    config: TrainingConfig
    data: Dataset[Any]
    validation: Dataset[Any] | None
    loss: Loss | None = None


class FitContext(NamedTuple):
    """What `Method.fit_statistics` may look at: normal images only, the calibration part not among them.

    Attributes:
        train: images the weights were trained on.
        held_out: normal images the weights never saw (the validation share); empty when that share is zero.
        generator: source of all randomness.
        progress: where to tell how far a long gathering is.
    """

    train: ImageCollection
    held_out: ImageCollection
    generator: torch.Generator
    progress: Progress | None
