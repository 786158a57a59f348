"""The steps of a fit, in order: shape, parts, training, statistics, provenance."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from dracones.detectors.provenance import provenance
from dracones.detectors.reading import counting
from dracones.detectors.splits import Parts, split
from dracones.images import ImageCollection, Preprocess, tiles_of
from dracones.training import Loss, Progress, TrainingConfig, train

if TYPE_CHECKING:
    from dracones.detectors.detector import Detector


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
    """What `Detector.fit_statistics` may look at: normal images only, the calibration part not among them.

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


def learn(
    detector: "Detector",
    images: ImageCollection,
    device: torch.device,
    progress: Progress | None,
    checkpoint: str | Path | None,
) -> Parts:
    """Build, train and gather statistics; returns the parts, of which calibration is left untouched."""
    started = time.monotonic()
    config = detector.config
    build(detector, image_shape(detector, images))
    detector.to(device)
    parts = _in_tiles(detector, split(images, config.validation_share, config.calibration_share, config.seed))
    reports = _train(detector, parts, progress, checkpoint)
    detector.eval()
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        detector.fit_statistics(FitContext(parts.train, parts.validation, generator, progress))
    with counting(progress, len(images), "data fingerprint") as count:
        fingerprint = images.fingerprint(progress=count)
    detector.provenance = provenance(config.seed, fingerprint, parts, time.monotonic() - started, reports)
    return parts


def build(detector: "Detector", shape: tuple[int, int, int]) -> None:
    """Make the detector's submodules for ``shape``, under its configuration's seed."""
    detector.image_shape = shape
    # Modules draw their first weights from torch's global generator: seed a fork of it, leave the global alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(detector.config.seed)
        detector.build(shape)


def choose_preprocess(detector: "Detector", images: ImageCollection) -> Preprocess:
    """The treatment that suits the images and the detector's configuration."""
    config = detector.config
    if config.tile is None:
        return Preprocess.infer(images, size=config.size, channels=config.channels)
    # Tiles make images of any size alike; only their depth has to be one.
    return Preprocess(size=config.size, channels=config.channels or images.native_shape(0)[0])


def image_shape(detector: "Detector", images: ImageCollection) -> tuple[int, int, int]:
    """``[C, H, W]`` of what `Detector.score` will see: a treated image, or a tile of one.

    Raises:
        ValueError: the images' shape is not one.
    """
    preprocess = images.inferred_preprocess()
    if detector.config.tile is not None:
        return (preprocess.channels or images.native_shape(0)[0], *detector.config.tile)
    if preprocess.image_shape is None:
        raise ValueError(
            f"{detector.info.name} needs one shape for all images of {images.name_of_source}; name size and channels, "
            "such as size=[256, 256]"
        )
    return preprocess.image_shape


def _in_tiles(detector: "Detector", parts: Parts) -> Parts:
    """The parts as the detector learns from them: in tiles, but for the calibration images, which stay whole."""
    tiling = detector.tiling
    if tiling is None:
        return parts
    return Parts(tiles_of(parts.train, tiling), tiles_of(parts.validation, tiling), parts.calibration)


def _train(detector: "Detector", parts: Parts, progress: Progress | None, checkpoint: str | Path | None) -> list[Any]:
    reports = []
    for trainee in detector.trainees(parts, progress):
        seed, device = detector.config.seed + trainee.number, str(detector.device)
        reports.append(
            train(
                trainee.module,
                trainee.data,
                trainee.config.model_copy(update={"seed": seed, "device": device}),
                validation=trainee.validation,
                checkpoint=None if checkpoint is None else _numbered(Path(checkpoint), trainee.number),
                progress=progress,
                loss=trainee.loss,
            )
        )
    return reports


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def forget_checkpoints(checkpoint: str | Path) -> None:
    """Remove what a fit with this ``checkpoint`` left, for all its runs."""
    path = Path(checkpoint)
    for left in [path, *path.parent.glob(f"{path.name}.[0-9]*")]:
        left.unlink(missing_ok=True)
