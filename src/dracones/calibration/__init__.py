"""Calibration: from scores of normal images to p-values and thresholds with a promised false-alarm rate."""

from dracones.calibration.conformal import Conformal, TooFewScores, clopper_pearson, realised_rate
from dracones.calibration.contamination import standing_apart
from dracones.calibration.heat_range import HeatRange
from dracones.calibration.prediction import Prediction, Verdict
from dracones.calibration.promise import Promise, coarseness, judge_promise

__all__ = [
    "Conformal",
    "HeatRange",
    "Prediction",
    "Promise",
    "TooFewScores",
    "Verdict",
    "clopper_pearson",
    "coarseness",
    "judge_promise",
    "realised_rate",
    "standing_apart",
]
