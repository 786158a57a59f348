"""Methods: what a paper describes, tensors in and tensors out; the detector around them is written once.

>>> "glow" in [info.name for info in methods()]
True
"""

from dracones.features.hollow import Limits, hollow
from dracones.methods.config import MethodConfig
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext, Parts, Trainee
from dracones.methods.method import FileExtras, Method, build, load_state
from dracones.methods.registry import method_class, method_names, methods, register
from dracones.methods.scores import Scores

__all__ = [
    "FileExtras",
    "FitContext",
    "Limits",
    "Method",
    "MethodConfig",
    "MethodInfo",
    "Parts",
    "Scores",
    "Trainee",
    "build",
    "hollow",
    "load_state",
    "method_class",
    "method_names",
    "methods",
    "register",
]
