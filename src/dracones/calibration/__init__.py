"""Calibration: from scores of normal images to p-values and thresholds with a promised false-alarm rate."""

from dracones.calibration.conformal import Conformal, TooFewScores, clopper_pearson, realised_rate
from dracones.calibration.contamination import standing_apart
from dracones.calibration.groups import Groups
from dracones.calibration.heat_range import HeatRange
from dracones.calibration.met import Met
from dracones.calibration.prediction import Prediction, Verdict
from dracones.calibration.promise import Promise, coarseness, judge_promise
from dracones.calibration.regions import Region, regions_of

__all__ = [
    "Conformal",
    "Groups",
    "HeatRange",
    "Met",
    "Prediction",
    "Promise",
    "Region",
    "TooFewScores",
    "Verdict",
    "clopper_pearson",
    "coarseness",
    "judge_promise",
    "realised_rate",
    "regions_of",
    "standing_apart",
]
