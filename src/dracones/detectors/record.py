"""What a fit and a calibration found, beside the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dracones.calibration import Conformal, Groups
from dracones.calibration.heat_range import HeatRange
from dracones.calibration.met import Digests, Met
from dracones.images import Interest, Preprocess


@dataclass(frozen=True)
class Record:
    """Facts of one fitted detector; a new one takes its place, it never changes.

    Attributes:
        preprocess: how every image is treated.
        image_shape: ``(C, H, W)`` of what the method sees.
        interest: region outside which nothing counts; ``None``: whole images do.
        calibration: scores of normal images that no fit has seen; empty where there were none.
        false_alarm_rate: promised for ``threshold``.
        confidence: with which the rate is promised for the calibration images at hand; ``None``: on average.
        threshold: score above which an image is anomalous; ``None`` where nothing could be promised, and where each
            group has its own.
        groups: the calibration by groups, each with its threshold; ``None`` where there are none.
        heat_range: how hot the maps of normal images are.
        provenance: versions, seed, data, training; under ``met``, digests of the images that were learnt from and of
            those that calibrated.
        digest: of the file that it was saved to or read from: one name for the detector, equal for equal fits;
            ``None`` where no file holds these facts.
    """

    preprocess: Preprocess
    image_shape: tuple[int, int, int]
    interest: Interest | None = None
    calibration: Conformal = field(default_factory=Conformal)
    false_alarm_rate: float | None = None
    confidence: float | None = None
    threshold: float | None = None
    groups: Groups | None = None
    heat_range: HeatRange | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None

    def uncalibrated(self) -> "Record":
        """The same without what was learnt from calibration images: their scores are of other settings."""
        return Record(self.preprocess, self.image_shape, self.interest, provenance=self.provenance)

    def seen(self, calibration: Conformal, heat_range: HeatRange | None, groups: Groups | None = None) -> "Record":
        """The same with scores of normal images, and no promise yet."""
        return replace(self.uncalibrated(), calibration=calibration, heat_range=heat_range, groups=groups)

    @property
    def learnt(self) -> Met:
        """The images that the method learnt from: the training and the validation part of the fit."""
        return Met.from_text(self.provenance.get("met", {}).get("learnt"))

    @property
    def calibrated(self) -> Met:
        """The images whose scores are the calibration."""
        return Met.from_text(self.provenance.get("met", {}).get("calibrated"))

    def met_in_calibration(self, found: Digests) -> "Record":
        """The same with the digests of the calibration images, and their count in place of those that a fit kept."""
        met = {**self.provenance.get("met", {}), "calibrated": Met.of(found).text()}
        images = {**self.provenance.get("images", {}), "calibration": len(self.calibration)}
        return replace(self, provenance={**self.provenance, "images": images, "met": met})

    def promising(self, false_alarm_rate: float, confidence: float | None, pixel_rate: float | None = None) -> "Record":
        """The same with the thresholds that promise this rate, of all images or of each group, and, of pixels,
        `pixel_rate` where that is given.

        Raises:
            TooFewScores: the calibration images are too few for a rate; the needed count is named.
        """
        heat = self.heat_range
        if heat is not None:
            asked = false_alarm_rate if pixel_rate is None else pixel_rate
            heat = heat.at(asked, confidence, strict=pixel_rate is not None)
        return replace(
            self,
            digest=None,
            false_alarm_rate=false_alarm_rate,
            confidence=confidence,
            threshold=self.calibration.threshold(false_alarm_rate, confidence) if self.groups is None else None,
            groups=None if self.groups is None else self.groups.at(false_alarm_rate, confidence),
            heat_range=heat,
        )
