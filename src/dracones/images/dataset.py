"""A collection as a map-style torch Dataset, decoded once where memory allows."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dracones.images.limits import UnreadableImage
from dracones.images.pixels import as_float


class Batch(NamedTuple):
    """Some images with their places in the collection (what was skipped is missing) and their names."""

    images: Tensor
    indices: np.ndarray
    names: list[str]


class Block(NamedTuple):
    """A run of places in a collection: what could be read of it, None where nothing was, and why the rest could not."""

    batch: Batch | None
    unread: list[tuple[int, UnreadableImage]]


class Readable(Protocol):
    """What a dataset asks of a collection."""

    def __len__(self) -> int: ...

    def read(self, index: int, /) -> Tensor:
        """One image `[C, H, W]`."""
        ...

    def batches(self, batch_size: int, /, *, workers: int = 0) -> Iterator[Batch]:
        """All that can be read, in order."""
        ...


class ImageDataset(Dataset[Tensor]):
    """Treated images `[C, H, W]`, float32 in [0, 1], of those in a collection that can be read.

    `indices` are their places in the collection. Images of 256 levels are kept as uint8, a quarter of the memory, and
    come back bit for bit; sets beyond the limit are decoded at every access.
    """

    def __init__(self, collection: Readable, indices: np.ndarray, cache: Tensor | None) -> None:
        self.collection = collection
        self.indices = indices
        self.cache = cache

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        if self.cache is None:
            return self.collection.read(int(self.indices[index]))
        return as_float(self.cache[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """Many at once: what a `DataLoader` asks for."""
        if self.cache is None:
            return [self[i] for i in indices]
        return list(as_float(self.cache[torch.as_tensor(indices)]))

    def batch(self, indices: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in one tensor: what the training loop asks for."""
        if self.cache is None:
            return torch.stack([self[int(i)] for i in indices])
        return as_float(self.cache[indices])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(C, H, W)` of every image."""
        return tuple(self.cache.shape[1:]) if self.cache is not None else tuple(self[0].shape)


def cached(
    collection: Readable, memory_limit: int, workers: int, progress: Callable[[int], None] | None
) -> ImageDataset:
    """One pass over a collection whose preprocess is set: finds what can be read, and keeps it while it fits."""
    kept: list[np.ndarray] = []
    cache: Tensor | None = None
    fits, filled = True, 0
    for batch in collection.batches(64, workers=workers):
        kept.append(batch.indices)
        if fits:
            images = _packed(batch.images)
            if cache is None:
                fits = _bytes(images, len(collection)) <= memory_limit
                cache = torch.empty((len(collection), *images.shape[1:]), dtype=images.dtype) if fits else None
            elif images.dtype != cache.dtype:
                # Deeper images turn up among those of 256 levels: from here on all are kept as floats.
                images, fits = batch.images, _bytes(batch.images, len(collection)) <= memory_limit
                cache = as_float(cache) if fits else None
            if cache is not None:
                cache[filled : filled + len(images)] = images
        filled += len(batch.images)
        if progress is not None:
            progress(len(batch.images))
    indices = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    return ImageDataset(collection, indices, None if cache is None else cache[:filled])


def _packed(images: Tensor) -> Tensor:
    """As uint8 where that loses nothing, else as they are."""
    packed = images.mul(255).round_().to(torch.uint8)
    return packed if torch.equal(as_float(packed), images) else images


def _bytes(images: Tensor, count: int) -> int:
    return count * images[0].numel() * images.element_size()
