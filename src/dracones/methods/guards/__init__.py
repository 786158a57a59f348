"""Guards for a deployed classifier: scores from its logits, its penultimate features and its input's gradient.

Each is one class (`Guard`): a formula that also runs on precomputed arrays, and the detector around it that takes them
from a classifier.

>>> import torch
>>> Msp.score(torch.tensor([[9.0, 0.0], [0.1, 0.0]]))
tensor([1.2339e-04, 4.7502e-01])
>>> Energy().score_outputs(torch.zeros(1, 2))
tensor([-0.6931])
"""

from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.density import FeatureDensity
from dracones.methods.guards.exported import as_classifier
from dracones.methods.guards.fingerprint import fingerprint
from dracones.methods.guards.gaussian import Mahalanobis, RelativeMahalanobis
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.loading import load_classifier
from dracones.methods.guards.logits import Energy, Entropy, Gen, MaxLogit, Msp
from dracones.methods.guards.neighbours import Knn
from dracones.methods.guards.odin import Odin
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.shaping import Ash, Dice, React, Scale
from dracones.methods.guards.subspace import Residual, Vim
from dracones.methods.guards.tuning import Tuning
from dracones.methods.guards.wrap import GuardedAnswer, GuardedClassifier

__all__ = [
    "Ash",
    "ClassifierOutputs",
    "ClassifierProbe",
    "Dice",
    "Energy",
    "Entropy",
    "FeatureDensity",
    "Gen",
    "Guard",
    "GuardConfig",
    "GuardedAnswer",
    "GuardedClassifier",
    "Knn",
    "LinearHead",
    "Mahalanobis",
    "MaxLogit",
    "Msp",
    "Odin",
    "React",
    "RelativeMahalanobis",
    "Residual",
    "Scale",
    "Tuning",
    "Vim",
    "as_classifier",
    "fingerprint",
    "load_classifier",
]
