"""Detectors: the estimator around a method, its pipeline, and its file; one contract for all.

>>> import dracones
>>> dracones.create("glow").info.title[:4]
'Glow'
"""

from dracones.calibration.prediction import Prediction, Verdict
from dracones.detectors.auditing import audit
from dracones.detectors.comparison import Comparison, compare
from dracones.detectors.creating import create, default_method, load
from dracones.detectors.detector import Detector
from dracones.detectors.evaluation import Evaluation, evaluate
from dracones.detectors.files import read_record
from dracones.detectors.fitting import forget_checkpoints
from dracones.detectors.made_defects import Sensitivity, sensitivity
from dracones.detectors.pipeline import Answer, Pipeline
from dracones.detectors.recalibration import Recalibration, recalibrate
from dracones.detectors.record import Record
from dracones.detectors.updating import Updated, update
from dracones.detectors.verification import Check, Verification, verify

__all__ = [
    "Answer",
    "Check",
    "Comparison",
    "Detector",
    "Evaluation",
    "Pipeline",
    "Prediction",
    "Recalibration",
    "Record",
    "Sensitivity",
    "Updated",
    "Verdict",
    "Verification",
    "audit",
    "compare",
    "create",
    "default_method",
    "evaluate",
    "forget_checkpoints",
    "load",
    "read_record",
    "recalibrate",
    "sensitivity",
    "update",
    "verify",
]
