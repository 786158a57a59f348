"""From a density's statistics to a score, larger = more anomalous: the baselines that lie, and the repairs."""

from dracones.images.codecs import codecs
from dracones.rules.auto import EMBEDDING, LAYOUT, Auto
from dracones.rules.complexity import Complexity, complexity
from dracones.rules.contrast import WAIC, LikelihoodRatio, LikelihoodRegret, replace_pixels
from dracones.rules.dose import DoSE
from dracones.rules.geometry import GradientNorm, IntrinsicDimension, gradient_norm, intrinsic_dimension
from dracones.rules.joint import Joint
from dracones.rules.levels import level_statistics
from dracones.rules.likelihood import Latent, Likelihood, Term, Typicality, Volume
from dracones.rules.rule import Rule, create, names, register
from dracones.rules.statistics import (
    Further,
    cheap_statistics,
    codec_statistics,
    create_for,
    gather,
    image_statistics,
    statistics_graph,
)
from dracones.rules.subbands import subband_energies, subband_names
from dracones.rules.surprise import Surprise
from dracones.rules.tails import EmpiricalTail

__all__ = [
    "EMBEDDING",
    "LAYOUT",
    "WAIC",
    "Auto",
    "Complexity",
    "DoSE",
    "EmpiricalTail",
    "Further",
    "GradientNorm",
    "IntrinsicDimension",
    "Joint",
    "Latent",
    "Likelihood",
    "LikelihoodRatio",
    "LikelihoodRegret",
    "Rule",
    "Surprise",
    "Term",
    "Typicality",
    "Volume",
    "cheap_statistics",
    "codec_statistics",
    "codecs",
    "complexity",
    "create",
    "create_for",
    "gather",
    "gradient_norm",
    "image_statistics",
    "intrinsic_dimension",
    "level_statistics",
    "names",
    "register",
    "replace_pixels",
    "statistics_graph",
    "subband_energies",
    "subband_names",
]
