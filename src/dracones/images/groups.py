"""Which images look alike: frames of a video, the same part twice."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import numpy as np
from PIL import Image
from torch import Tensor

from dracones.images.preprocess import Preprocess

_AT_MOST = 20_000
"""Images that are compared with one another; beyond it every pair would take minutes."""


class Images(Protocol):
    """What is needed of a collection."""

    def __len__(self) -> int: ...

    def subset(self, indices: Any) -> Self:
        """A view of some images."""

    def with_preprocess(self, preprocess: Preprocess | None) -> Self:
        """The same images, treated another way."""

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Batches with ``.images`` and ``.indices``."""

    def sample_shapes(self, count: int) -> dict[str, tuple[int, int, int]]:
        """Native shapes of some images."""


def similar_groups(
    images: Images, *, distance: int = 2, progress: Callable[[int], None] | None = None
) -> list[list[int]]:
    """Places of images that look alike (frames of a video, the same part twice), two or more together.

    Two are alike where their perceptual hashes (64 bits of a cosine transform, by `imagehash`) differ in at most
    ``distance`` bits, directly or through others. For up to 20,000 images; of more, the first are compared.
    """
    places, hashes = _perceptual_hashes(images, progress)
    parents = np.arange(len(hashes))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = int(parents[place])
        return place

    for place in range(len(hashes)):
        apart = (
            np.bitwise_count(hashes[place + 1 :] ^ hashes[place])
            if hasattr(np, "bitwise_count")
            else _bits(hashes[place + 1 :] ^ hashes[place])
        )
        for other in np.flatnonzero(apart <= distance) + place + 1:
            parents[root(int(other))] = root(place)
    groups: dict[int, list[int]] = {}
    for place in range(len(hashes)):
        groups.setdefault(root(place), []).append(int(places[place]))
    return [found for found in groups.values() if len(found) > 1]


def _perceptual_hashes(images: Images, progress: Callable[[int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """Places of the readable images, and the hash of each."""
    few = images.subset(range(min(len(images), _AT_MOST)))
    places, hashes = [], []
    for batch in few.with_preprocess(Preprocess(size=(64, 64), channels=_channels(images))).batches(64):
        places += batch.indices.tolist()
        hashes += [_perceptual(image) for image in batch.images.mean(dim=1)]
        if progress is not None:
            progress(len(batch.images))
    return np.array(places, dtype=np.int64), np.array(hashes, dtype=np.uint64)


def _channels(images: Images) -> int | None:
    depths = {shape[0] for shape in images.sample_shapes(16).values()}
    return 1 if depths <= {1, 3} else None


def _perceptual(image: Tensor) -> int:
    import imagehash

    picture = Image.fromarray((image.numpy() * 255).round().astype(np.uint8))
    return int(str(imagehash.phash(picture)), 16)


def _bits(values: np.ndarray) -> np.ndarray:
    counts: np.ndarray = np.unpackbits(values[:, None].view(np.uint8), axis=1).sum(axis=1)
    return counts
