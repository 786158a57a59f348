"""The steps of a fit, in order: treatment, shape, parts, training, statistics, provenance."""

import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dracones.calibration.met import Digests, Met
from dracones.detectors.familiar import digests, first_of_each
from dracones.detectors.provenance import provenance
from dracones.detectors.record import Record
from dracones.detectors.splitting import Places, check_count, cut, groups_of
from dracones.images import ImageCollection, Preprocess, Tiling, similar_groups, tiles_of
from dracones.methods import FitContext, Method, MethodConfig, MethodInfo, Parts, Trainee, build
from dracones.training import Progress, TrainingReport, counting, train
from dracones.training.world import World, launched

_COMPARED = 5_000
"""Images that are compared for looking alike; beyond it reading them once more would take minutes."""

_TREATMENT = ("size", "channels", "fit", "crop", "interpolation")


def choose_preprocess(info: MethodInfo, config: MethodConfig, images: ImageCollection) -> Preprocess:
    """The treatment that the images bring, or that suits them and the configuration.

    Raises:
        ValueError: images that bring a treatment, and options that ask for another.
    """
    own = images.preprocess
    if own is not None:
        return _inferred(images, _agreed(info, config, own), tiled=config.tile is not None)
    wanted = Preprocess.model_validate({name: getattr(config, name) for name in _TREATMENT})
    return _inferred(images, wanted, tiled=config.tile is not None)


def _agreed(info: MethodInfo, config: MethodConfig, own: Preprocess) -> Preprocess:
    """The images' own treatment, unless an option that was given says otherwise."""
    for name in _TREATMENT:
        asked, has = getattr(config, name), getattr(own, name)
        if name in config.model_fields_set and asked not in (None, has):
            raise ValueError(
                f"the images were opened with {name}={has}, and {info.name} was asked for {name}={asked}; "
                "give one of the two, as both cannot be"
            )
    return own


def _inferred(images: ImageCollection, wanted: Preprocess, *, tiled: bool) -> Preprocess:
    if tiled:
        # Tiles make images of any size alike; only their depth has to be one.
        return wanted.model_copy(update={"channels": wanted.channels or images.native_shape(0)[0]})
    return Preprocess.infer(
        images,
        size=wanted.size,
        channels=wanted.channels,
        fit=wanted.fit,
        crop=wanted.crop,
        interpolation=wanted.interpolation,
    )


def image_shape(info: MethodInfo, config: MethodConfig, images: ImageCollection) -> tuple[int, int, int]:
    """``[C, H, W]`` of what a method will see: a treated image, or a tile of one.

    Raises:
        ValueError: the images' shape is not one.
    """
    preprocess = images.inferred_preprocess()
    if config.tile is not None:
        return (preprocess.channels or images.native_shape(0)[0], *config.tile)
    if preprocess.image_shape is None:
        raise ValueError(
            f"{info.name} needs one shape for all images of {images.name_of_source}; name size and channels, "
            "such as size=[256, 256]"
        )
    return preprocess.image_shape


def tiling_of(config: MethodConfig) -> Tiling | None:
    """How images are cut in tiles; ``None`` where they are seen whole."""
    return None if config.tile is None else Tiling(size=config.tile, overlap=config.tile_overlap)


def groups_in(
    config: MethodConfig, images: ImageCollection, found: Digests, progress: Progress | None = None
) -> Places:
    """Which images belong together, after a warning where there are copies; see `groups_of`."""
    copies = len(found) - len(first_of_each(found))
    if copies:
        warnings.warn(
            f"{copies} of {len(found)} images of {images.name_of_source} are copies of others; copies stay together, "
            "and count once where they calibrate",
            RuntimeWarning,
            stacklevel=4,
        )
    if config.group_by is None:
        _warn_of_frames(images, progress)
    return groups_of(images.names, found, config.group_by)


def _warn_of_frames(images: ImageCollection, progress: Progress | None) -> None:
    """Say where files look like frames of one scene, which a random cut would put on both sides.

    Parts that all lie alike in their picture look alike too: a group of more than a fifth of the images is no scene.
    """
    if images.groups is None or len(images) > _COMPARED:
        return
    with counting(progress, len(images), "looking for frames of one scene") as count:
        alike = [group for group in similar_groups(images, progress=count) if len(group) <= len(images) / 5]
    several = sum(map(len, alike))
    if several > len(images) / 10:
        first, second = (images.name(i) for i in alike[0][:2])
        warnings.warn(
            f"{several} of {len(images)} images of {images.name_of_source} look like another one, such as {first} and "
            f"{second}: if they are frames of one scene, keep them together (group_by='folder' or a pattern of the "
            "names), or the threshold will be too low for new scenes",
            RuntimeWarning,
            stacklevel=5,
        )


def learn(
    method: Method,
    images: ImageCollection,
    shape: tuple[int, int, int],
    device: torch.device,
    progress: Progress | None,
    checkpoint: str | Path | None,
) -> tuple[Parts, Mapping[str, Any] | None]:
    """Build, train and gather statistics; returns the parts, of which calibration is left untouched, and provenance.

    Copies among the calibration images are left out, as each image has one say in the threshold. Of several processes
    all train, and the main one alone does the rest: the others have no provenance.
    """
    started = time.monotonic()
    rank = launched()
    method.settle(device)
    config = method.config
    check_count(len(images), config.validation_share, config.calibration_share)
    found = digests(images, progress)
    # Where nothing is learnt copies leak nothing from one side to another.
    if method.learns:
        groups = groups_in(config, images, found, progress)
    else:
        groups = groups_of(images.names, None, config.group_by)
    places = cut(groups, config.validation_share, config.calibration_share, config.seed)
    places = places._replace(calibration=places.calibration[first_of_each(found[places.calibration])])
    parts = in_tiles(config, places.parts(images))
    build(method, shape)
    method.to(device)
    reports = _train(method, parts, progress, checkpoint)
    method.eval()
    if not rank.is_main:
        return parts, None
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        method.fit_statistics(FitContext(parts.train, parts.validation, generator, progress))
    with counting(progress, len(images), "data fingerprint") as count:
        fingerprint = images.fingerprint(progress=count)
    facts = provenance(config.seed, fingerprint, parts, time.monotonic() - started, reports)
    learnt = Met.of(found[np.concatenate([places.train, places.validation])] if method.learns else found[:0])
    return parts, {
        **facts,
        **({"notes": list(method.notes)} if method.notes else {}),
        "native": native_shapes(images),
        "met": {"learnt": learnt.text(), "calibrated": Met.of(found[places.calibration]).text()},
    }


def native_shapes(images: ImageCollection) -> list[list[int]]:
    """The different ``[C, H, W]`` among up to 64 of the images, before any treatment."""
    return [list(shape) for shape in sorted(set(images.with_preprocess(None).sample_shapes(64).values()))]


def in_tiles(config: MethodConfig, parts: Parts) -> Parts:
    """The parts as a method learns from them: in tiles, but for the calibration images, which stay whole."""
    tiling = tiling_of(config)
    if tiling is None:
        return parts
    return Parts(tiles_of(parts.train, tiling), tiles_of(parts.validation, tiling), parts.calibration)


def _train(
    method: Method, parts: Parts, progress: Progress | None, checkpoint: str | Path | None
) -> list[TrainingReport]:
    reports = []
    device = str(method.device)
    trainees = _one_after_the_other(method.trainees(parts, progress), device)
    trainee = next(trainees, None)
    while trainee is not None:
        own = {"seed": method.config.seed + trainee.number, "device": device}
        try:
            report = train(
                trainee.module,
                trainee.data,
                trainee.config.model_copy(update=own),
                validation=trainee.validation,
                checkpoint=None if checkpoint is None else _numbered(Path(checkpoint), trainee.number),
                progress=progress,
                loss=trainee.loss,
            )
        except Exception as error:
            # The method hears of it where it waits, and may know how to go on; most do not, and then it is raised.
            trainee = _next_despite(trainees, error)
            continue
        reports.append(report)
        trainee = next(trainees, None)
    return reports


def _next_despite(trainees: Generator[Trainee, None, None], error: Exception) -> Trainee | None:
    try:
        return trainees.throw(error)
    except StopIteration:
        return None


def _one_after_the_other(trainees: Iterator[Trainee], device: str) -> Generator[Trainee, None, None]:
    """The trainees; of several processes the main one makes each first, and the others find its features on disk."""
    if launched().processes == 1:
        yield from trainees
        return
    world = World(device)
    while True:
        with world.main_first():
            trainee = next(trainees, None)
        if trainee is None:
            return
        yield trainee


def agreed(method: Method, record: Record | None) -> Record | None:
    """The record that the main process found, on each of several, whose methods then hold what the main one's does."""
    if launched().processes == 1:
        return record
    world = World(str(method.device))
    extras, state, found = world.shared((method.header_extras(), method.saved_state(), record))
    if not world.is_main:
        method.restore(extras, state)
        method.eval()
    return found


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def forget_checkpoints(checkpoint: str | Path) -> None:
    """Remove what a fit with this ``checkpoint`` left, for all its runs."""
    path = Path(checkpoint)
    for left in [path, *path.parent.glob(f"{path.name}.[0-9]*")]:
        left.unlink(missing_ok=True)
