"""Guards for a deployed classifier: scores from its logits, its penultimate features and its input's gradient.

Each score is a formula (`PostHocScore`, or a function of `logit_scores` and `shaping`) that also runs on precomputed
arrays, and a detector (`ClassifierDetector`) that takes the arrays from a classifier by a hook.

>>> import torch
>>> outputs = ClassifierOutputs(torch.tensor([[9.0, 0.0], [0.1, 0.0]]))
>>> msp(outputs.logits)
tensor([1.2339e-04, 4.7502e-01])
"""

from dracones.detectors.classifier.comparison import Comparison, compare
from dracones.detectors.classifier.exported import as_classifier
from dracones.detectors.classifier.feature_methods import Knn, Mahalanobis, RelativeMahalanobis, Residual, Vim
from dracones.detectors.classifier.fingerprint import fingerprint
from dracones.detectors.classifier.guard import ClassifierConfig, ClassifierDetector
from dracones.detectors.classifier.loading import load_classifier
from dracones.detectors.classifier.logit_methods import Energy, Entropy, Gen, LogitScore, MaxLogit, Msp
from dracones.detectors.classifier.logit_scores import energy, entropy, gen, max_logit, msp
from dracones.detectors.classifier.odin import Odin
from dracones.detectors.classifier.outputs import ClassifierOutputs, LinearHead
from dracones.detectors.classifier.post_hoc import PostHocScore
from dracones.detectors.classifier.probe import ClassifierProbe
from dracones.detectors.classifier.shaping import ash_b, ash_p, ash_s, dice_weight, react, scale
from dracones.detectors.classifier.shaping_methods import Ash, Dice, React, Scale
from dracones.detectors.classifier.tuning import Tuning
from dracones.detectors.classifier.wrap import GuardedAnswer, GuardedClassifier

__all__ = [
    "Ash",
    "ClassifierConfig",
    "ClassifierDetector",
    "ClassifierOutputs",
    "ClassifierProbe",
    "Comparison",
    "Dice",
    "Energy",
    "Entropy",
    "Gen",
    "GuardedAnswer",
    "GuardedClassifier",
    "Knn",
    "LinearHead",
    "LogitScore",
    "Mahalanobis",
    "MaxLogit",
    "Msp",
    "Odin",
    "PostHocScore",
    "React",
    "RelativeMahalanobis",
    "Residual",
    "Scale",
    "Tuning",
    "Vim",
    "as_classifier",
    "ash_b",
    "ash_p",
    "ash_s",
    "compare",
    "dice_weight",
    "energy",
    "entropy",
    "fingerprint",
    "gen",
    "load_classifier",
    "max_logit",
    "msp",
    "react",
    "scale",
]
