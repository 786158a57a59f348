"""Features as what a training loop reads: stored in files, or computed when asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["ComputedFeatures", "Extractor", "FeatureDataset", "Images", "StoredFeatures"]

_READ_AT_ONCE = 16


class Images(Protocol):
    """What the cache needs of a collection of images (`dracones.images.ImageCollection` has it)."""

    @property
    def preprocess(self) -> Any:
        """What is done to every image."""

    def __len__(self) -> int: ...

    def fingerprint(self, *, progress: Callable[[int], None] | None = None) -> str:
        """Hash of the images' content, in order; `progress` counts them."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Batches with ``.images`` `[B, C, H, W]`, in order."""

    def subset(self, indices: Any) -> "Images":
        """A view of some images."""


class Extractor(Protocol):
    """What the cache needs of a network: `FeatureExtractor` has it, and what is built on one."""

    name: str

    @property
    def mean(self) -> Tensor:
        """A tensor on the network's device."""

    def fingerprint(self) -> str:
        """Hash of everything the features depend on."""

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch."""


class FeatureDataset(Dataset[tuple[Tensor, ...]], ABC):
    """Items are tuples of feature maps `[C_l, h_l, w_l]`, float32; `batch` gives several stacked."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps `[B, C_l, h_l, w_l]` of the images at `indices`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name of the content: the same for the same weights, preprocessing and images."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(level[0] for level in self.batch(torch.tensor([index])))

    def chunks(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """All items in order, `size` at a time."""
        for indices in torch.arange(len(self)).split(size):
            yield self.batch(indices)


class StoredFeatures(FeatureDataset):
    """Feature maps read from memory-mapped files.

    `levels` are the raw arrays `[N, h_l, w_l, C_l]` (`[N, D]` for embeddings), channels last, for methods that want
    vectors in bulk.
    """

    def __init__(self, levels: Sequence[NDArray[Any]], key: str = "") -> None:
        self.levels = tuple(levels)
        self.key = key

    def __len__(self) -> int:
        return len(self.levels[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps of the images at `indices`, widened to float32, channels-last in memory."""
        rows = indices.cpu().numpy()
        return tuple(_to_tensor(level[rows]) for level in self.levels)

    def fingerprint(self) -> str:
        """The cache's key."""
        return self.key


class ComputedFeatures(FeatureDataset):
    """The same items, computed anew at each access: what a cache gives when the disk cannot hold the features.

    Images that cannot be read are no items, as in stored features: all are read once to know them.
    """

    def __init__(self, extractor: Extractor, images: Images, key: str = "") -> None:
        self.extractor = extractor
        self.images = images.subset(np.concatenate([batch.indices for batch in images.batches(_READ_AT_ONCE)]))
        self.key = key

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps of the images at `indices`, read and computed now."""
        (batch,) = self.images.subset(indices.cpu().numpy()).batches(len(indices))
        return tuple(level.cpu() for level in self.extractor(batch.images.to(self.extractor.mean.device)))

    def fingerprint(self) -> str:
        """The key that the cache would have used."""
        return self.key


def _to_tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor
