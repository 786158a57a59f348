"""The answer of several methods over one pass of the backbone, on the scale of normal images."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from dracones.features import (
    FeatureDataset,
    FeatureExtractor,
    ScaledExtractor,
    StoredFeatures,
    pooled_statistics,
)
from dracones.images import ImageCollection
from dracones.methods.feature_flows.cflow import CFlow
from dracones.methods.feature_flows.embedding_flow import EmbeddingFlow
from dracones.methods.heatmap import at_size
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext, Parts, Trainee
from dracones.methods.memories.padim import PaDiM
from dracones.methods.memories.patchcore import PatchCore
from dracones.methods.on_features import FeatureConfig, FeatureMethod, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.methods.witness_weights import Standard, witness_weights
from dracones.training import Progress, TrainingConfig

WitnessName = Literal["whole", "place", "patch", "flow"]

_POOLING = ("mean", "max", "std")
_CHUNK = 32
