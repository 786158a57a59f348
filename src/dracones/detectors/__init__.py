"""Detectors: the estimator around a method, its pipeline, and its file; one contract for all.

>>> import dracones
>>> dracones.create("glow").info.title[:4]
'Glow'
"""

from typing import TYPE_CHECKING

from dracones.calibration.prediction import Prediction, Verdict
from dracones.lazy import lazily

if TYPE_CHECKING:
    from dracones.detectors.auditing import audit as audit
    from dracones.detectors.comparison import Comparison as Comparison
    from dracones.detectors.comparison import compare as compare
    from dracones.detectors.creating import create as create
    from dracones.detectors.creating import default_method as default_method
    from dracones.detectors.creating import load as load
    from dracones.detectors.detector import Detector as Detector
    from dracones.detectors.evaluation import Evaluation as Evaluation
    from dracones.detectors.evaluation import evaluate as evaluate
    from dracones.detectors.files import read_record as read_record
    from dracones.detectors.fitting import forget_checkpoints as forget_checkpoints
    from dracones.detectors.made_defects import Sensitivity as Sensitivity
    from dracones.detectors.made_defects import sensitivity as sensitivity
    from dracones.detectors.pipeline import Answer as Answer
    from dracones.detectors.pipeline import Pipeline as Pipeline
    from dracones.detectors.recalibration import Recalibration as Recalibration
    from dracones.detectors.recalibration import recalibrate as recalibrate
    from dracones.detectors.record import Record as Record
    from dracones.detectors.updating import Updated as Updated
    from dracones.detectors.updating import update as update
    from dracones.detectors.verification import Check as Check
    from dracones.detectors.verification import Verification as Verification
    from dracones.detectors.verification import verify as verify

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

_HOMES = {
    "Answer": "pipeline",
    "Check": "verification",
    "Comparison": "comparison",
    "Detector": "detector",
    "Evaluation": "evaluation",
    "Pipeline": "pipeline",
    "Recalibration": "recalibration",
    "Record": "record",
    "Sensitivity": "made_defects",
    "Updated": "updating",
    "Verification": "verification",
    "audit": "auditing",
    "compare": "comparison",
    "create": "creating",
    "default_method": "creating",
    "evaluate": "evaluation",
    "forget_checkpoints": "fitting",
    "load": "creating",
    "read_record": "files",
    "recalibrate": "recalibration",
    "sensitivity": "made_defects",
    "update": "updating",
    "verify": "verification",
}
# Scores of an exported file are judged where there is no torch.
__getattr__ = lazily(__name__, _HOMES)
