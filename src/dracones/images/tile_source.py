"""The overlapping tiles of a collection's images, as a collection of their own: what a tiled detector learns from."""

from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate

import numpy as np
from torch import Tensor
from typing_extensions import override

from dracones.images.collection import ImageCollection
from dracones.images.digests import digest_of_array
from dracones.images.limits import UnreadableImage
from dracones.images.preprocess import Preprocess
from dracones.images.sources import ImageSource
from dracones.images.tiles import Tiling

# Tiles of one image are asked for one after the other; a few decoded images are enough to keep.
_KEPT = 4


def tiles_of(images: ImageCollection, tiling: Tiling) -> ImageCollection:
    """Every tile of every image, in order, named like ``part.png[top,left]``.

    Images may differ in size; each is treated by its collection's `preprocess` before it is cut.

    Example:
        >>> import torch
        >>> from dracones.images import open_images
        >>> tiles = tiles_of(open_images(torch.zeros(5, 1, 64, 96)), Tiling(size=(32, 32)))
        >>> len(tiles), tiles.name(1), tiles.read(0).shape
        (30, 'tensor[0][0,32]', torch.Size([1, 32, 32]))
    """
    return ImageCollection(TilesSource(images, tiling), preprocess=Preprocess(), strict=images.strict)


class TilesSource(ImageSource):
    """Tiles of images, cut when asked for."""

    def __init__(self, images: ImageCollection, tiling: Tiling) -> None:
        self.images, self.tiling = images, tiling
        self.name = f"tiles of {images.name_of_source}"
        self._places = [self._places_in(i) for i in range(len(images))]
        self._ends = list(accumulate(len(places) for places in self._places))
        self._decoded: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @override
    def item_name(self, index: int) -> str:
        image, (top, left) = self._find(index)
        return f"{self.images.name(image)}[{top},{left}]"

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        image, _ = self._find(index)
        return self._image(image).shape[0], *self.tiling.size

    @override
    def read(self, index: int) -> np.ndarray:
        image, (top, left) = self._find(index)
        return self.tiling.cut(self._image(image), top, left).permute(1, 2, 0).numpy()

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_array(self.read(index))

    def _places_in(self, index: int) -> list[tuple[int, int]]:
        """Where the tiles of one image lie; an image that cannot be read has none and is recorded as skipped."""
        try:
            return self.tiling.places(*self._size(index))
        except UnreadableImage as error:
            self.images.skip(error)
            return []

    def _size(self, index: int) -> tuple[int, int]:
        preprocess = self.images.preprocess
        size = None if preprocess is None else preprocess.crop or preprocess.size
        return self.images.native_shape(index)[1:] if size is None else size

    def _find(self, index: int) -> tuple[int, tuple[int, int]]:
        image = bisect_right(self._ends, index)
        return image, self._places[image][index - (self._ends[image - 1] if image else 0)]

    def _image(self, index: int) -> Tensor:
        image = self._decoded.get(index)
        if image is None:
            # Several threads may come here: each works on its own reference, whatever the others throw out meanwhile.
            image = self.images.read(index)
            self._decoded[index] = image
            for old in list(self._decoded)[:-_KEPT]:
                self._decoded.pop(old, None)
        return image
