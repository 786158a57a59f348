"""Calibration: from scores of normal images to p-values and thresholds with a promised false-alarm rate."""

from dracones.calibration.conformal import Conformal, TooFewScores, clopper_pearson, realised_rate

__all__ = ["Conformal", "TooFewScores", "clopper_pearson", "realised_rate"]
