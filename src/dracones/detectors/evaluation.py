"""How well a detector tells normal from anomalous images, and, with masks, where the anomaly is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.calibration.prediction import Prediction
from dracones.detectors.detector import Detector
from dracones.images import ImageCollection, open_images
from dracones.metrics import evaluate_maps, evaluate_scores
from dracones.training import Progress


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one comparison; anomalous is the positive class.

    Attributes:
        image: metric name → ``value``, ``low``, ``high`` (an interval at the chosen confidence).
        pixel: the same for heat maps against masks, or ``None`` without masks.
        counts: images scored and skipped on each side.
        normal: prediction on the normal images.
        anomalous: prediction on the anomalous images.
    """

    image: dict[str, dict[str, float]]
    pixel: dict[str, dict[str, float]] | None
    counts: dict[str, int]
    normal: Prediction
    anomalous: Prediction

    def to_json(self) -> dict[str, Any]:
        """Metrics and counts as plain JSON-able values."""
        return {"image": self.image, "pixel": self.pixel, "counts": self.counts}


def evaluate(
    detector: Detector,
    normal: Any,
    anomalous: Any,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Evaluation:
    """Score both sets with the same preprocessing and compare.

    Args:
        detector: a fitted detector.
        normal: images that belong, not used for fitting.
        anomalous: images that do not; where the collection has masks, the heat maps are judged too.
        confidence: of the intervals.
        seed: of the bootstrap.
        batch_size: images scored together.
        progress: is told how far the scoring is.

    Raises:
        ValueError: one side has no readable image, or a mask of another size than its image.
    """
    collections = {
        "normal": detector.adopt(open_images(normal)),
        "anomalous": detector.adopt(open_images(anomalous)),
    }
    with_maps = detector.gives_maps and collections["anomalous"].has_masks
    predictions = {
        side: detector.predict(images, batch_size=batch_size, maps=with_maps, progress=progress)
        for side, images in collections.items()
    }
    for side, prediction in predictions.items():
        if len(prediction) == 0:
            raise ValueError(f"the {side} set has no readable image; {len(prediction.errors)} were skipped")
    # A method that can draw maps may have been set up not to.
    has_maps = all(prediction.maps is not None for prediction in predictions.values())
    scores = np.concatenate([predictions["normal"].scores, predictions["anomalous"].scores])
    labels = np.repeat([0, 1], [len(predictions["normal"]), len(predictions["anomalous"])])
    return Evaluation(
        image=evaluate_scores(scores, labels, confidence=confidence, seed=seed),
        pixel=_pixel_metrics(predictions, collections, confidence, seed) if has_maps else None,
        counts={
            "normal": len(predictions["normal"]),
            "anomalous": len(predictions["anomalous"]),
            "skipped": sum(len(prediction.errors) for prediction in predictions.values()),
        },
        normal=predictions["normal"],
        anomalous=predictions["anomalous"],
    )


def _pixel_metrics(
    predictions: dict[str, Prediction], collections: dict[str, ImageCollection], confidence: float, seed: int
) -> dict[str, dict[str, float]]:
    maps, masks = [], []
    for side, prediction in predictions.items():
        # Masks are compared at the images' own resolution, whatever size the detector looks at.
        native = collections[side].with_preprocess(None)
        place = {name: i for i, name in enumerate(native.names)}
        for path, score_map in zip(prediction.paths, prediction.maps or (), strict=True):
            maps.append(score_map)
            masks.append(_mask(native, place[path], score_map.shape, path, side))
    return evaluate_maps(maps, masks, confidence=confidence, seed=seed)


def _mask(images: ImageCollection, index: int, shape: tuple[int, ...], path: str, side: str) -> NDArray[np.bool_]:
    mask = images.mask(index) if images.has_masks else None
    if mask is None:
        if side == "anomalous":
            raise ValueError(f"no mask for the anomalous image {path}; give one for each or none at all")
        return np.zeros(shape, dtype=np.bool_)
    if tuple(mask.shape) != shape:
        raise ValueError(
            f"the mask of {path} has shape {list(mask.shape)}, its image has {list(shape)}; "
            "a mask must have its image's own height and width"
        )
    return mask.numpy()
