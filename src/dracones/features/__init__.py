"""Features: frozen pretrained backbones, a cache of what they see, and where in the image they see it."""

from dracones.features.cache import FeatureCache, features_in_memory
from dracones.features.dataset import ComputedFeatures, Extractor, FeatureDataset, StoredFeatures
from dracones.features.enlarged import EnlargedExtractor
from dracones.features.extractor import FeatureExtractor
from dracones.features.names import backbone_names
from dracones.features.packaged import PACKAGED, default_backbone
from dracones.features.pooling import Statistic, StatisticPool, pooled_statistics
from dracones.features.position import SinusoidalPosition, sinusoidal_position
from dracones.features.precision import InPrecision, computes_bf16
from dracones.features.pyramid import ImagePyramid, RotatedEmbedding, rotated
from dracones.features.scaled import ScaledExtractor
from dracones.features.weights import WeightReport, adapt_input_kernel
from dracones.files.weights import read_weights

__all__ = [
    "PACKAGED",
    "ComputedFeatures",
    "EnlargedExtractor",
    "Extractor",
    "FeatureCache",
    "FeatureDataset",
    "FeatureExtractor",
    "ImagePyramid",
    "InPrecision",
    "RotatedEmbedding",
    "ScaledExtractor",
    "SinusoidalPosition",
    "Statistic",
    "StatisticPool",
    "StoredFeatures",
    "WeightReport",
    "adapt_input_kernel",
    "backbone_names",
    "computes_bf16",
    "default_backbone",
    "features_in_memory",
    "pooled_statistics",
    "read_weights",
    "rotated",
    "sinusoidal_position",
]
