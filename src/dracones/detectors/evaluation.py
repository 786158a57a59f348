"""How well a detector tells normal from anomalous images, and, with masks, where the anomaly is."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dracones.calibration import Promise, coarseness, judge_promise
from dracones.calibration.prediction import Prediction
from dracones.detectors.alarms import Alarms
from dracones.detectors.familiar import digests, refuse_anomalous, refuse_learnt
from dracones.detectors.outlines import Outlined, outlined, predicted_with_peaks
from dracones.detectors.pixel_evaluation import masked_places, pixel_metrics
from dracones.detectors.promises import promises_by_group
from dracones.images.keys import How
from dracones.images.limits import Skipped
from dracones.metrics import evaluate_scores
from dracones.runtime.calibrated import Calibrated
from dracones.training import Progress

if TYPE_CHECKING:
    from dracones.detectors.detector import Detector
    from dracones.detectors.record import Record
    from dracones.runtime import ExportedDetector


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one comparison; anomalous is the positive class.

    Attributes:
        image: metric name → ``value``, ``low``, ``high`` (an interval at the chosen confidence).
        pixel: the same for heat maps against masks, or ``None`` without masks.
        counts: images scored and skipped on each side.
        normal: prediction on the normal images.
        anomalous: prediction on the anomalous images.
        alarms: share of images called anomalous, with its exact interval, of ``normal`` (realised false alarms) and
            ``anomalous`` (detections); ``None`` without a threshold.
        kinds: the same for each kind of anomaly, by the folder it lies in; empty where there is one folder alone.
        promise: what became of the promised false-alarm rate; ``None`` without a threshold, where each group has its
            own, or where most of the normal images set it themselves.
        groups: what became of each group's promise, where each has its own.
        outlined: share of images with any pixel above the threshold of pixels, on both sides, and what became of the
            promise made of it; ``None`` without heat maps, or where no normal map was ever seen.
        masked: anomalous images whose mask marks something, of which the pixel metrics are; ``None`` without masks.
        notes: what is to be known about the numbers, in sentences.
    """

    image: dict[str, dict[str, float]]
    pixel: dict[str, dict[str, float]] | None
    counts: dict[str, int]
    normal: Prediction
    anomalous: Prediction
    alarms: dict[str, Alarms] | None = None
    kinds: dict[str, Alarms] = field(default_factory=dict)
    promise: Promise | None = None
    groups: dict[str, Promise] = field(default_factory=dict)
    outlined: Outlined | None = None
    masked: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be judged; once, though both sides of one set know what was passed over before the parting."""
        return _once(self.normal, self.anomalous)

    def to_json(self) -> dict[str, Any]:
        """Metrics, counts and verdict as plain JSON-able values."""
        return {
            "image": self.image,
            "pixel": self.pixel,
            "counts": self.counts,
            "alarms": None if self.alarms is None else {side: each.to_json() for side, each in self.alarms.items()},
            "kinds": {kind: each.to_json() for kind, each in self.kinds.items()},
            "promise": None if self.promise is None else self.promise.to_json(),
            "outlined": None if self.outlined is None else self.outlined.to_json(),
            "groups": {group: each.to_json() for group, each in self.groups.items()},
            "masked": self.masked,
            "notes": list(self.notes),
        }


def evaluate(
    detector: "Detector | ExportedDetector",
    normal: Any,
    anomalous: Any,
    *,
    groups: How | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Evaluation:
    """Score both sets with the same preprocessing and compare.

    Args:
        detector: fitted, or an exported file, which needs no torch.
        normal: images that belong, not used for fitting.
        anomalous: images that do not; where the collection has masks, the heat maps are judged too.
        groups: each image's group on both sides, where the calibration has groups; by default as it was told there.
        confidence: of the intervals.
        seed: of the bootstrap.
        batch_size: images scored together.
        progress: is told how far the scoring is.

    Raises:
        ValueError: one side has no readable image, a mask of another size than its image, or normal images that the
            detector learnt from (a few of them are left out, with a warning).
    """
    record, given = detector.fitted(), _opened(detector, normal)
    refuse_anomalous(given, "judge it")
    if groups is not None and isinstance(record, Calibrated):
        raise ValueError("an exported file has one threshold for all images and knows no groups; leave groups out")
    found = digests(given, progress)
    fresh = ~refuse_learnt(record.learnt, found, given.name_of_source, "judge it")
    given, found = given.subset(fresh), found[fresh]
    collections = {"normal": detector.adopt(given), "anomalous": detector.adopt(_opened(detector, anomalous))}
    with_maps = detector.gives_maps and collections["anomalous"].has_masks
    answers = {
        side: predicted_with_peaks(
            detector, images, groups=groups, keep_maps=with_maps, batch_size=batch_size, progress=progress
        )
        for side, images in collections.items()
    }
    predictions = {side: prediction for side, (prediction, _) in answers.items()}
    peaks = {side: found for side, (_, found) in answers.items() if found is not None}
    for side, prediction in predictions.items():
        if len(prediction) == 0:
            raise ValueError(f"the {side} set has no readable image; {len(prediction.errors)} were skipped")
    # A method that can draw maps may have been set up not to.
    has_maps = all(prediction.maps is not None for prediction in predictions.values())
    alarms, kinds = _alarms(predictions, collections["anomalous"], confidence)
    known = dict(zip(given.names, record.calibrated.holds(found), strict=True))
    calibrated = np.array([known[path] for path in predictions["normal"].paths], dtype=np.bool_)
    promise, notes = _promise(record, predictions["normal"], calibrated, confidence)
    by_group: dict[str, Promise] = {}
    if record.groups is not None and record.false_alarm_rate is not None:
        by_group, more = promises_by_group(
            record.groups, predictions["normal"], ~calibrated, record.false_alarm_rate, record.confidence, confidence
        )
        notes += more
    scores = np.concatenate([predictions["normal"].scores, predictions["anomalous"].scores])
    labels = np.repeat([0, 1], [len(predictions["normal"]), len(predictions["anomalous"])])
    masked, unmasked = masked_places(collections["anomalous"], predictions["anomalous"]) if has_maps else ([], [])
    notes += unmasked
    return Evaluation(
        image=evaluate_scores(scores, labels, confidence=confidence, seed=seed),
        pixel=pixel_metrics(predictions, collections, masked, confidence, seed) if masked else None,
        counts={
            "normal": len(predictions["normal"]),
            "anomalous": len(predictions["anomalous"]),
            "skipped": len(_once(*predictions.values())),
        },
        normal=predictions["normal"],
        anomalous=predictions["anomalous"],
        alarms=alarms,
        kinds=kinds,
        promise=promise,
        outlined=outlined(record.heat_range, peaks, calibrated, confidence)
        if record.heat_range is not None and len(peaks) == len(predictions)
        else None,
        groups=by_group,
        masked=len(masked) if has_maps else None,
        notes=tuple(notes),
    )


def _opened(detector: "Detector | ExportedDetector", images: Any) -> Any:
    """Images as the detector takes them: tensors, or for an exported file the arrays that they are."""
    from dracones.runtime import ExportedDetector

    if isinstance(detector, ExportedDetector):
        return detector.adopt(images)
    return detector.open(images)


def _alarms(
    predictions: dict[str, Prediction], anomalous: Any, confidence: float
) -> tuple[dict[str, Alarms] | None, dict[str, Alarms]]:
    """How many are called anomalous on both sides, and of each kind of anomaly."""
    normal, odd = predictions["normal"].is_anomaly, predictions["anomalous"].is_anomaly
    if normal is None or odd is None:
        return None, {}
    kinds = _kinds(anomalous, predictions["anomalous"])
    return (
        {"normal": Alarms.of(normal, confidence), "anomalous": Alarms.of(odd, confidence)},
        {kind: Alarms.of(odd[places], confidence) for kind, places in kinds.items()},
    )


def _promise(
    record: "Record | Calibrated", normal: Prediction, calibrated: NDArray[np.bool_], coverage: float
) -> tuple[Promise | None, list[str]]:
    """What became of the promise on the normal images that did not set the threshold, and what is to be said of it."""
    if record.false_alarm_rate is None:
        return None, []
    notes = []
    if calibrated.any():
        notes.append(
            f"{int(calibrated.sum())} of {len(calibrated)} normal images set the threshold themselves, and so raise no "
            "more alarms than were promised; they say nothing of the promise."
        )
    if record.groups is not None:
        return None, notes
    coarse = coarseness(record.calibration, record.false_alarm_rate, record.confidence)
    notes += [] if coarse is None else [coarse]
    if 2 * calibrated.sum() >= len(calibrated):
        return None, notes
    scores = normal.scores[~calibrated]
    return judge_promise(
        record.calibration, scores, record.false_alarm_rate, record.confidence, coverage=coverage
    ), notes


def _kinds(images: Any, prediction: Prediction) -> dict[str, list[int]]:
    """Places in the prediction of each kind of anomaly, where folders tell more than one."""
    groups = images.groups
    if groups is None or len(set(groups)) < 2:
        return {}
    group_of = dict(zip(images.names, groups, strict=True))
    kinds: dict[str, list[int]] = {}
    for place, path in enumerate(prediction.paths):
        kinds.setdefault(group_of[path] or "(no folder)", []).append(place)
    return kinds


def _once(*predictions: Prediction) -> list[Skipped]:
    return list(dict.fromkeys(item for prediction in predictions for item in prediction.errors))
