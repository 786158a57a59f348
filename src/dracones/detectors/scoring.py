"""Walk a collection in batches and turn raw scores into verdicts at each image's own size."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dracones.detectors.heat_range import HeatRange, heat_facts
from dracones.detectors.prediction import Scores, Verdict
from dracones.detectors.reading import reading_threads
from dracones.detectors.tiling import score_in_tiles
from dracones.images import Batch, ImageCollection
from dracones.training import Progress

if TYPE_CHECKING:
    from dracones.detectors.detector import Detector


def verdicts(
    detector: "Detector", images: ImageCollection, *, batch_size: int, maps: bool, progress: Progress | None
) -> Iterator[Verdict]:
    """Score ``images`` and compare with the calibration, one verdict an image, in order."""
    for batch, scores in _scored(detector, images, batch_size, progress):
        sizes = [images.native_shape(int(i))[1:] for i in batch.indices] if maps and scores.map is not None else []
        yield from _judge(detector, scores, batch.names, sizes)


def scores_of_normals(
    detector: "Detector", images: ImageCollection, *, batch_size: int = 32, progress: Progress | None = None
) -> tuple[list[float], HeatRange | None]:
    """What a calibration needs of normal images: their scores, and how hot their maps are where there are maps."""
    found: list[float] = []
    facts: list[tuple[float, float]] = []
    for _, scores in _scored(detector, images, batch_size, progress):
        found += scores.image.float().cpu().tolist()
        if scores.map is not None:
            facts += heat_facts(scores.map)
    return found, HeatRange.of(facts)


def _scored(
    detector: "Detector", images: ImageCollection, batch_size: int, progress: Progress | None
) -> Iterator[tuple[Batch, Scores]]:
    was_training = detector.training
    detector.eval()
    if progress is not None:
        progress.start(len(images), "scoring")
    # A tiled image fills its own batches with tiles; images may then differ in size.
    size = batch_size if detector.tiling is None else 1
    try:
        for batch in images.batches(size, workers=reading_threads()):
            yield batch, score_batch(detector, batch.images, batch_size)
            if progress is not None:
                progress.advance(len(batch.names))
    finally:
        detector.train(was_training)
        if progress is not None:
            progress.finish()


def score_batch(detector: "Detector", images: Tensor, batch_size: int = 32) -> Scores:
    """Scores of one batch without gradient tracking.

    Raises:
        ValueError: a score that is not a number; a sum of anything with NaN has no order.
    """
    with torch.no_grad():
        if detector.tiling is not None:
            scores = score_in_tiles(detector, images[0], detector.tiling, batch_size)
        else:
            scores = detector.score(images.to(detector.device))
    bad = int(torch.isnan(scores.image).sum())
    if bad:
        raise ValueError(
            f"{detector.info.name} gave {bad} NaN score(s) in a batch of {len(images)}; its weights or statistics "
            "are not finite: fit again with a smaller learning rate, or check the images for constant channels"
        )
    return scores


def _judge(detector: "Detector", scores: Scores, names: list[str], sizes: list[tuple[int, int]]) -> Iterator[Verdict]:
    values = scores.image.float().cpu().numpy().astype(np.float32)
    p_values = detector.calibration.p_values(values) if len(detector.calibration) else None
    for i, name in enumerate(names):
        yield Verdict(
            path=name,
            score=float(values[i]),
            p_value=None if p_values is None else float(p_values[i]),
            is_anomaly=None if detector.threshold is None else bool(values[i] > detector.threshold),
            map=to_size(scores.map[i], sizes[i]) if sizes and scores.map is not None else None,
        )


def to_size(score_map: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map ``[h, w]`` at ``size``, bilinear."""
    if tuple(score_map.shape) != size:
        score_map = interpolate(score_map[None, None].float(), size=size, mode="bilinear", align_corners=False)[0, 0]
    return score_map.float().cpu().numpy().astype(np.float32)


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict whose buffers may have grown while fitting (memory banks, fitted statistics).

    Raises:
        RuntimeError: names that do not match, or a parameter of another shape.
    """
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        try:
            owner = module.get_submodule(path)
        except AttributeError:
            continue  # load_state_dict below names it
        held = owner._buffers.get(leaf)
        if leaf in owner._buffers and (held is None or held.shape != tensor.shape or held.dtype != tensor.dtype):
            owner._buffers[leaf] = torch.empty_like(tensor)
    module.load_state_dict(dict(state), strict=True)
