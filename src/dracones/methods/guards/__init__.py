"""Guards for a deployed classifier: scores from its logits, its penultimate features and its input's gradient.

Each score is a formula (`PostHocScore`, or a function of `logit_scores` and `shaping`) that also runs on precomputed
arrays, and a detector (`Guard`) that takes the arrays from a classifier by a hook.

>>> import torch
>>> outputs = ClassifierOutputs(torch.tensor([[9.0, 0.0], [0.1, 0.0]]))
>>> msp(outputs.logits)
tensor([1.2339e-04, 4.7502e-01])
"""

from dracones.methods.guards.exported import as_classifier
from dracones.methods.guards.feature_methods import Knn, Mahalanobis, RelativeMahalanobis, Residual, Vim
from dracones.methods.guards.fingerprint import fingerprint
from dracones.methods.guards.guard import Guard, GuardConfig
from dracones.methods.guards.loading import load_classifier
from dracones.methods.guards.logit_methods import Energy, Entropy, Gen, LogitScore, MaxLogit, Msp
from dracones.methods.guards.logit_scores import energy, entropy, gen, max_logit, msp
from dracones.methods.guards.odin import Odin
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.post_hoc import PostHocScore
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.shaping import ash_b, ash_p, ash_s, dice_weight, react, scale
from dracones.methods.guards.shaping_methods import Ash, Dice, React, Scale
from dracones.methods.guards.tuning import Tuning
from dracones.methods.guards.wrap import GuardedAnswer, GuardedClassifier

__all__ = [
    "Ash",
    "ClassifierOutputs",
    "ClassifierProbe",
    "Dice",
    "Energy",
    "Entropy",
    "Gen",
    "Guard",
    "GuardConfig",
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
