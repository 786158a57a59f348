"""Detectors: one file a method, one contract for all.

>>> import dracones
>>> "glow" in [info.name for info in dracones.methods()]
True
"""

from dracones.detectors.detector import Detector
from dracones.detectors.evaluation import Evaluation, evaluate
from dracones.detectors.files import load
from dracones.detectors.fitting import FitContext, Trainee, forget_checkpoints
from dracones.detectors.prediction import Prediction, Scores, Verdict
from dracones.methods.config import DetectorConfig
from dracones.methods.info import MethodInfo
from dracones.methods.registry import create, detector_class, method_names, methods, register

__all__ = [
    "Detector",
    "DetectorConfig",
    "Evaluation",
    "FitContext",
    "MethodInfo",
    "Prediction",
    "Scores",
    "Trainee",
    "Verdict",
    "create",
    "detector_class",
    "evaluate",
    "forget_checkpoints",
    "load",
    "method_names",
    "methods",
    "register",
]
