"""What an exported file knows of its calibration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from dracones.calibration import Conformal, Groups, HeatRange, Met


@dataclass(frozen=True)
class Calibrated:
    """The promise of an exported file, and the images that it was made with; as the detector's record has them.

    Attributes:
        calibration: scores of normal images; empty where there were none.
        false_alarm_rate: promised for the file's threshold.
        confidence: with which it is promised; ``None``: on average.
        learnt: images that the method learnt from.
        calibrated: images whose scores are the calibration.
        heat_range: how hot the maps of normal images are.
        groups: none; a detector with groups is not exported.
    """

    calibration: Conformal
    false_alarm_rate: float | None
    confidence: float | None
    learnt: Met
    calibrated: Met
    heat_range: HeatRange | None = None
    groups: Groups | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any], calibration: Conformal, heat_range: HeatRange | None) -> Self:
        """From a file's description, and what was read of it before."""
        told, met = facts["calibration"], facts["provenance"].get("met", {})
        learnt, calibrated = (Met.from_text(met.get(name)) for name in ("learnt", "calibrated"))
        return cls(calibration, told["false_alarm_rate"], told["confidence"], learnt, calibrated, heat_range)
