"""One pass of a backbone that serves several methods, each reading its part."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dracones.features import FeatureDataset, Statistic, StoredFeatures, pooled_statistics
from dracones.images import ImageCollection
from dracones.methods.on_features import FeatureReader
from dracones.training import Progress

_AT_ONCE = 16


@dataclass(frozen=True)
class SharedReader:
    """What a method reads of a pass of the backbone that it shares with others.

    No closure, so that whoever holds it can be copied and pickled.

    Attributes:
        shared: gives the features of images at all levels.
        levels: those that are read.
        pooling: gives their statistics over positions, one row an image, in their place.
    """

    shared: FeatureReader
    levels: tuple[int, ...]
    pooling: tuple[Statistic, ...] | None = None

    def __call__(self, images: ImageCollection, progress: Progress | None) -> FeatureDataset:
        """Features of the images, as this method reads them."""
        features = self.shared(images, progress)
        if self.pooling is None:
            return _some_levels(features, self.levels)
        return _embedded(features, self.levels, self.pooling)


def _embedded(features: FeatureDataset, levels: tuple[int, ...], pooling: tuple[Statistic, ...]) -> StoredFeatures:
    rows = [pooled_statistics([maps[i] for i in levels], pooling).cpu().numpy() for maps in features.chunks(_AT_ONCE)]
    return StoredFeatures([np.concatenate(rows)], f"{features.fingerprint()}/embedded")


def _some_levels(features: FeatureDataset, levels: tuple[int, ...]) -> FeatureDataset:
    key = f"{features.fingerprint()}/{levels}"
    if isinstance(features, StoredFeatures):
        return StoredFeatures([features.levels[i] for i in levels], key)
    return _SomeLevels(features, levels, key)


class _SomeLevels(FeatureDataset):
    """A view of some of the levels of features that are computed when asked for."""

    def __init__(self, features: FeatureDataset, levels: tuple[int, ...], key: str) -> None:
        self.features, self.levels, self.key = features, levels, key

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        maps = self.features.batch(indices)
        return tuple(maps[i] for i in self.levels)

    def fingerprint(self) -> str:
        return self.key
