"""How many images have a pixel above the threshold of pixels, and what became of its promise."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dracones.calibration import HeatRange, Prediction, Promise, judge_promise
from dracones.calibration.maps_on_disk import MapsOnDisk
from dracones.detectors.alarms import Alarms
from dracones.images.keys import How
from dracones.training import Progress

if TYPE_CHECKING:
    from dracones.detectors.detector import Detector
    from dracones.runtime import ExportedDetector


@dataclass(frozen=True)
class Outlined:
    """Images with any pixel above the threshold of pixels.

    Attributes:
        normal: of the normal images: the realised share of what was promised.
        anomalous: of the anomalous ones.
        promise: what became of the promise; ``None`` where nothing was promised of pixels, or most of the normal images
            set the threshold themselves.
    """

    normal: Alarms
    anomalous: Alarms
    promise: Promise | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "normal": self.normal.to_json(),
            "anomalous": self.anomalous.to_json(),
            "promise": None if self.promise is None else self.promise.to_json(),
        }


def predicted_with_peaks(
    detector: "Detector | ExportedDetector",
    images: Any,
    *,
    groups: How | None,
    keep_maps: bool,
    batch_size: int,
    progress: Progress | None,
) -> tuple[Prediction, NDArray[np.float64] | None]:
    """Verdicts on a collection, and the hottest pixel of each map; maps that are kept lie on disk."""
    verdicts, peaks, kept = [], [], MapsOnDisk()
    hottest = detector.heat_range is not None
    with_maps = keep_maps or hottest
    asked: dict[str, Any] = {} if groups is None else {"groups": groups}  # an exported file has none
    for verdict in detector.iterate(images, batch_size=batch_size, maps=with_maps, progress=progress, **asked):
        if verdict.map is not None:
            peaks.append(float(np.nanmax(verdict.map, initial=-np.inf)))
            if keep_maps:
                kept.append(verdict.map)
        verdicts.append(replace(verdict, map=None))
    found = Prediction.gather(verdicts, tuple(images.skipped), detector.threshold, detector.false_alarm_rate)
    if len(kept) and len(kept) == len(verdicts):
        found = replace(found, maps=kept)
    return found, np.array(peaks) if hottest and len(peaks) == len(verdicts) else None


def outlined(
    normal: HeatRange,
    peaks: dict[str, NDArray[np.float64]],
    calibrated: NDArray[np.bool_],
    coverage: float,
) -> Outlined:
    """Count both sides, and test the promise on the normal images that did not set the threshold.

    Args:
        normal: the heat of normal images.
        peaks: the hottest pixel of each image, by side: ``normal``, ``anomalous``.
        calibrated: which of the normal images set the threshold.
        coverage: of the intervals.
    """
    promise = None
    if normal.rate is not None and 2 * calibrated.sum() < len(calibrated):
        fresh = peaks["normal"][~calibrated]
        promise = judge_promise(
            normal.peaks, fresh, normal.rate, normal.confidence, coverage=coverage, what="images with an outline"
        )
    counts = {side: Alarms.of(normal.hot(each), coverage) for side, each in peaks.items()}
    return Outlined(counts["normal"], counts["anomalous"], promise)
