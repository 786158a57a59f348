"""Detectors: one file a method, one contract for all.

>>> import dracones
>>> "glow" in [info.name for info in dracones.methods()]
True
"""

from dracones.detectors.config import DetectorConfig
from dracones.detectors.detector import Detector, FitContext, load
from dracones.detectors.evaluation import Evaluation, evaluate
from dracones.detectors.info import MethodInfo
from dracones.detectors.prediction import Prediction, Scores, Verdict
from dracones.detectors.registry import create, detector_class, method_names, methods, register

__all__ = [
    "Detector",
    "DetectorConfig",
    "Evaluation",
    "FitContext",
    "MethodInfo",
    "Prediction",
    "Scores",
    "Verdict",
    "create",
    "detector_class",
    "evaluate",
    "load",
    "method_names",
    "methods",
    "register",
]
