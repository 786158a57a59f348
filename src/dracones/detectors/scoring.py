"""What is made of scores: verdicts at each image's own size, and what a calibration needs of normal images."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dracones.calibration import standing_apart
from dracones.calibration.heat_range import HeatRange, usual_heat
from dracones.calibration.prediction import Verdict
from dracones.detectors.grouping import Grouping
from dracones.detectors.pipeline import Pipeline
from dracones.detectors.streaming import Scorer, score_blocks
from dracones.images import Batch, ImageCollection, Preprocess, Skipped
from dracones.methods import Method, Scores
from dracones.training import Progress


def stream(
    scorer: Scorer,
    images: ImageCollection,
    places: range,
    *,
    batch_size: int,
    maps: bool,
    progress: Progress | None,
    grouping: Grouping | None = None,
) -> Iterator[list[Verdict | Skipped]]:
    """Score ``images`` at ``places`` and compare with the calibration: one answer an image, block by block."""

    def finish(scorer: Scorer, batch: Batch, scores: Scores) -> list[Verdict]:
        sizes = [images.native_shape(int(i))[1:] if maps else None for i in batch.indices]
        if grouping is None:
            judged = list(_judged(scorer.pipeline, scores, batch.names, sizes, None))
        else:
            own = grouping.of(batch.indices)
            grouped = _judged(scorer.pipeline, scores, batch.names, sizes, own)
            judged = [replace(each, group=grouping.names[at]) for each, at in zip(grouped, own, strict=True)]
        for verdict, index in zip(judged, batch.indices, strict=True):
            if verdict.map is not None:
                _blank_outside(verdict.map, images, int(index))
        return judged

    for done in score_blocks(scorer, images, places, finish, batch_size=batch_size, progress=progress):
        answers: dict[int, Verdict | Skipped] = dict(zip(done.indices, done.results, strict=True))
        answers |= {place: Skipped(error.name, error.reason) for place, error in done.unread}
        yield [answers[place] for place in done.places]


class NormalScores(NamedTuple):
    """What a calibration needs: scores, the place in the collection of each one's image, how hot the maps are."""

    scores: list[float]
    places: list[int]
    heat_range: HeatRange | None


def scores_of_normals(
    scorer: Scorer,
    images: ImageCollection,
    *,
    groups: Sequence[str] | None = None,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> NormalScores:
    """What a calibration needs of normal images, after a warning of scores that stand apart (in their group).

    Raises:
        ValueError: scores that are not finite, with their count and the first images' names.
    """
    found: list[float] = []
    facts: list[tuple[float, float]] = []
    names: list[str] = []
    places: list[int] = []

    def finish(scorer: Scorer, batch: Batch, scores: Scores) -> list[tuple[str, float, tuple[float, float] | None]]:
        heats: list[tuple[float, float] | None] = [None] * len(batch.names)
        if scores.map is not None:
            heats = list(_heat_facts(scorer.pipeline.preprocess, scores.map, images, batch))
        return list(zip(batch.names, scores.image.float().cpu().tolist(), heats, strict=True))

    for done in score_blocks(scorer, images, range(len(images)), finish, batch_size=batch_size, progress=progress):
        for _, error in done.unread:
            images.skip(error)
        places += done.indices
        for name, score, heat in done.results:
            names.append(name)
            found.append(score)
            facts += [] if heat is None else [heat]
    images.refuse_unread(len(found))
    infinite = [name for name, value in zip(names, found, strict=True) if not math.isfinite(value)]
    if infinite:
        raise ValueError(
            f"{len(infinite)} of {len(found)} calibration images have scores that are not finite: {_some(infinite)}; "
            "no threshold can be promised from them"
        )
    members: dict[str, list[int]] = {}
    for number, place in enumerate(places):
        members.setdefault("" if groups is None else groups[place], []).append(number)
    for group, numbers in members.items():
        _warn_of_apart([names[i] for i in numbers], [found[i] for i in numbers], group)
    return NormalScores(found, places, HeatRange.of(facts))


def _warn_of_apart(names: list[str], found: list[float], group: str) -> None:
    apart = standing_apart(found)
    if not apart:
        return
    highest = [names[i] for i in np.argsort(found, kind="stable")[: -apart - 1 : -1]]
    of = f" of group {group}" if group else ""
    warnings.warn(
        f"{apart} of {len(found)} calibration images{of} score far above all others: {_some(highest)}; if they are "
        "anomalies, take them out and calibrate again, as they raise the threshold and hide others like them",
        RuntimeWarning,
        stacklevel=5,
    )


def _heat_facts(
    preprocess: Preprocess, maps: Tensor, images: ImageCollection, batch: Batch
) -> Iterator[tuple[float, float]]:
    """Usual heat, and the hottest pixel of each map as it is shown: at its image's own size, where the image counts.

    That pixel is what a threshold of pixels is for.
    """
    for i, index in enumerate(batch.indices):
        one = maps[i : i + 1].float()
        heat = preprocess.restore(one, images.native_shape(int(index))[1:])[0].cpu().numpy()
        inside = images.inside(int(index))
        if inside is None:
            yield usual_heat(one)[0], float(np.nanmax(heat, initial=-math.inf))
        else:
            counts = torch.from_numpy(heat[inside])
            seen = counts[~counts.isnan()]
            # A crop may have left nothing of the region to look at.
            yield (usual_heat(seen[None, None])[0], float(seen.max())) if len(seen) else (0.0, -math.inf)


def _blank_outside(heat: NDArray[np.float32], images: ImageCollection, index: int) -> None:
    """What lies outside the region of interest was not looked at."""
    inside = images.inside(index)
    if inside is not None:
        heat[~inside] = np.nan


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


def _judged(
    pipeline: Pipeline,
    scores: Scores,
    names: list[str],
    sizes: list[tuple[int, int] | None],
    places: NDArray[np.int64] | None,
) -> Iterator[Verdict]:
    groups = None if places is None else torch.as_tensor(places).to(scores.image.device)
    # Maps follow one by one: images of a batch may differ in size.
    answer = pipeline.answer(scores, size=None, groups=groups)
    values = answer.score.tolist()
    p_values = [None] * len(names) if answer.p_value is None else answer.p_value.tolist()
    flags = [None] * len(names) if answer.is_anomaly is None else answer.is_anomaly.tolist()
    loudest = _loudest(pipeline.method, scores)
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        heat = None
        if scores.map is not None and size is not None:
            heat = pipeline.preprocess.restore(scores.map[i : i + 1].float(), size)[0].cpu().numpy()
        yield Verdict(name, values[i], p_values[i], flags[i], heat, loudest[i])


def _loudest(method: Method, scores: Scores) -> Sequence[str | None]:
    """Who adds most to each score, by name; nobody's name where a method is one voice."""
    if scores.evidence is None:
        return [None] * len(scores.image)
    return [method.voices[i] for i in scores.evidence.argmax(dim=1).tolist()]
