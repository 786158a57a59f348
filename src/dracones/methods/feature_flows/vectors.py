"""Feature maps as a bag of vectors, shuffled over images and positions."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dracones.features import FeatureDataset, StoredFeatures


class LevelVectors(NamedTuple):
    """Vectors `[N, C]` of one level, their positions `[N]` in the flattened map, and the map's height and width."""

    vectors: Tensor
    rows: Tensor
    size: tuple[int, int]


class FeatureVectors(Dataset[tuple[LevelVectors, ...]]):
    """Items are chunks: one image's vectors at a random share of its positions, the same share of every level.

    A batch of chunks holds vectors of many images; an epoch sees every vector once. Which positions belong together
    is drawn once from `seed`.

    Args:
        features: the maps.
        chunks: chunks per image; fewer where a level has fewer positions.
        seed: of the shares.
    """

    def __init__(self, features: FeatureDataset, chunks: int, seed: int) -> None:
        self.features = features
        first = features.batch(torch.tensor([0]))
        self.sizes = [(level.shape[2], level.shape[3]) for level in first]
        self.chunks = min(chunks, *(height * width for height, width in self.sizes))
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(height * width, generator=generator) for height, width in self.sizes]
        self.shares = [[order[part :: self.chunks] for part in range(self.chunks)] for order in orders]

    def __len__(self) -> int:
        return len(self.features) * self.chunks

    def __getitem__(self, index: int) -> tuple[LevelVectors, ...]:
        return self.batch(torch.tensor([index]))

    def fingerprint(self) -> str:
        """Name of the content."""
        return f"{self.features.fingerprint()}/{self.chunks}"

    def batch(self, indices: Tensor) -> tuple[LevelVectors, ...]:
        """All vectors of the chunks at `indices`."""
        images, parts = indices // self.chunks, indices % self.chunks
        return tuple(self._level(level, images, parts) for level in range(len(self.sizes)))

    def _level(self, level: int, images: Tensor, parts: Tensor) -> LevelVectors:
        shares = [self.shares[level][int(part)] for part in parts]
        if isinstance(self.features, StoredFeatures):
            stored = self.features.levels[level]
            flat = stored.reshape(len(stored), -1, stored.shape[-1])  # a view: nothing is read yet
            found = [
                torch.from_numpy(flat[int(image)][share.numpy()]) for image, share in zip(images, shares, strict=True)
            ]
        else:
            which, place = torch.unique(images, return_inverse=True)
            maps = self.features.batch(which)[level].flatten(2).transpose(1, 2)
            found = [maps[int(at)][share] for at, share in zip(place, shares, strict=True)]
        return LevelVectors(torch.cat(found).float(), torch.cat(shares), self.sizes[level])
