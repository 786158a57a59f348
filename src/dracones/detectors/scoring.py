"""Walk a collection in batches and turn raw scores into verdicts at each image's own size."""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dracones.calibration import standing_apart
from dracones.calibration.heat_range import HeatRange, heat_facts
from dracones.calibration.prediction import Verdict
from dracones.detectors.pipeline import Pipeline
from dracones.detectors.tiling import score_in_tiles
from dracones.images import Batch, ImageCollection, Preprocess, Tiling, reading_threads
from dracones.methods import Scores
from dracones.training import Progress


class NotANumber(ValueError):  # noqa: N818 (reads as what it says)
    """A method gave NaN for an image."""


class Scorer(NamedTuple):
    """A pipeline in eval mode, and how images are cut before it; ``None``: not at all."""

    pipeline: Pipeline
    tiling: Tiling | None


def verdicts(
    scorer: Scorer, images: ImageCollection, *, batch_size: int, maps: bool, progress: Progress | None
) -> Iterator[Verdict]:
    """Score ``images`` and compare with the calibration, one verdict an image, in order."""
    for batch, scores in _scored(scorer, images, batch_size, progress):
        sizes = [images.native_shape(int(i))[1:] if maps else None for i in batch.indices]
        yield from _judged(scorer.pipeline, scores, batch.names, sizes)


def scores_of_normals(
    scorer: Scorer, images: ImageCollection, *, batch_size: int = 32, progress: Progress | None = None
) -> tuple[list[float], HeatRange | None]:
    """What a calibration needs of normal images: their scores, and how hot their maps are where there are maps.

    Raises:
        ValueError: scores that are not finite, with their count and the first images' names.
    """
    found: list[float] = []
    facts: list[tuple[float, float]] = []
    names: list[str] = []
    for batch, scores in _scored(scorer, images, batch_size, progress):
        values = scores.image.float().cpu().tolist()
        found += values
        names += batch.names
        if scores.map is not None:
            facts += heat_facts(scores.map)
    infinite = [name for name, value in zip(names, found, strict=True) if not math.isfinite(value)]
    if infinite:
        raise ValueError(
            f"{len(infinite)} of {len(found)} calibration images have scores that are not finite: {_some(infinite)}; "
            "no threshold can be promised from them"
        )
    apart = standing_apart(found)
    if apart:
        highest = [names[i] for i in np.argsort(found, kind="stable")[: -apart - 1 : -1]]
        warnings.warn(
            f"{apart} of {len(found)} calibration images score far above all others: {_some(highest)}; if they are "
            "anomalies, take them out and calibrate again, as they raise the threshold and hide others like them",
            RuntimeWarning,
            stacklevel=4,
        )
    return found, HeatRange.of(facts)


def _some(names: list[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def treated_by(preprocess: Preprocess, images: ImageCollection) -> ImageCollection:
    """The collection with a detector's treatment.

    Raises:
        ValueError: the collection brings another treatment, which would be dropped without a word.
    """
    own = images.preprocess
    if own is not None and own != preprocess:
        raise ValueError(
            f"{images.name_of_source} was opened with {own!r}, but this detector treats images by {preprocess!r}; "
            "open it without a preprocess (the detector brings its own), or fit with the one you want"
        )
    return images.with_preprocess(preprocess)


def _scored(
    scorer: Scorer, images: ImageCollection, batch_size: int, progress: Progress | None
) -> Iterator[tuple[Batch, Scores]]:
    if progress is not None:
        progress.start(len(images), "scoring")
    # A tiled image fills its own batches with tiles; images may then differ in size.
    size = batch_size if scorer.tiling is None else 1
    try:
        for batch in images.batches(size, workers=reading_threads()):
            try:
                yield batch, score_batch(scorer, batch.images, batch_size)
            except NotANumber as error:
                raise NotANumber(f"{error}; among {', '.join(batch.names[:5])}") from None
            if progress is not None:
                progress.advance(len(batch.names))
    finally:
        if progress is not None:
            progress.finish()


@torch.no_grad()
def score_batch(scorer: Scorer, images: Tensor, batch_size: int = 32) -> Scores:
    """Scores of one batch of treated images, without gradient tracking.

    Raises:
        ValueError: a score that is not a number; a sum of anything with NaN has no order.
    """
    method = scorer.pipeline.method
    if scorer.tiling is not None:
        scores = score_in_tiles(method, images[0], scorer.tiling, batch_size)
    else:
        images = images.to(method.device)
        scores = method(images, method.host_statistics(images))
    bad = int(torch.isnan(scores.image).sum())
    if bad:
        method.explain_nan(images)
        raise NotANumber(
            f"{method.info.name} gave {bad} NaN score(s) in a batch of {len(images)}; its weights or statistics "
            "are not finite: fit again with a smaller learning rate, or check the images for constant channels"
        )
    return scores


def _judged(
    pipeline: Pipeline, scores: Scores, names: list[str], sizes: list[tuple[int, int] | None]
) -> Iterator[Verdict]:
    answer = pipeline.answer(scores, size=None)  # maps follow one by one: images of a batch may differ in size
    values = answer.score.tolist()
    p_values = [None] * len(names) if answer.p_value is None else answer.p_value.tolist()
    flags = [None] * len(names) if answer.is_anomaly is None else answer.is_anomaly.tolist()
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        heat = None
        if scores.map is not None and size is not None:
            heat = pipeline.preprocess.restore(scores.map[i : i + 1].float(), size)[0].cpu().numpy()
        yield Verdict(name, values[i], p_values[i], flags[i], heat)
