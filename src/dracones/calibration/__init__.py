"""Calibration: from scores of normal images to p-values and thresholds with a promised false-alarm rate."""

from dracones.calibration.conformal import Conformal, TooFewScores, clopper_pearson, realised_rate
from dracones.calibration.heat_range import HeatRange
from dracones.calibration.prediction import Prediction, Verdict

__all__ = ["Conformal", "HeatRange", "Prediction", "TooFewScores", "Verdict", "clopper_pearson", "realised_rate"]
