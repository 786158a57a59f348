"""`open_images`: one word for every place that images come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler

from dracones.images.collection import ImageCollection
from dracones.images.folder import Pages, every_page
from dracones.images.formats.arrays import Layout, array_source, checked_labels
from dracones.images.formats.layouts import Found
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.masks import with_masks
from dracones.images.paths import listed_source, path_source
from dracones.images.preprocess import Preprocess
from dracones.images.sources import DatasetSource, ImageSource

_NO_ORDER = "has no length and no order to go back to; give a map-style Dataset, an array or a tensor"


def open_images(
    source: Any,
    *,
    preprocess: Preprocess | None = None,
    strict: bool = False,
    limits: Limits | None = None,
    labels: Any = None,
    masks: str | Path | Sequence[str | Path | None] | Literal[False] | None = None,
    layout: Layout | None = None,
    pages: Pages = "first",
) -> ImageCollection:
    """Open images wherever they are; files are found, and decoded later, when asked for.

    `source` is one of

    - a folder (searched to the bottom, natural order), an image file, a pattern (`parts/*/*.png`), a list of files;
    - a folder in MVTec-AD's layout, by part: `bottle:train`, `bottle:test`, `bottle/test/scratch`;
    - a folder as torchvision leaves it: idx files (`MNIST:train`, `MNIST/raw:test`), CIFAR's pickled batches
      (`cifar-10-batches-py:test`), SVHN's `.mat` files; or one such file;
    - an `.npz` or `.npy` file, with the array's name behind a colon where there are several (`mnist.npz:x_test`);
    - a tar file in WebDataset's layout, a Parquet file with encoded images (`set.parquet:column` where there are
      several), a folder or pattern of them: read at their place, never unpacked;
    - images that need no file: `builtin:gravel?count=500&size=32`, `synthetic:uniform?count=100`, `scenes:gravel`;
    - a Pillow image, or a list of images (Pillow's, arrays, tensors);
    - an array or tensor, `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` (uint8, uint16 or float in [0, 1]);
    - a map-style torch `Dataset`, a `DataLoader` (for its dataset), anything else with `len()` and `[index]`;
    - an `ImageCollection`, which is returned, or a view of it.

    Args:
        source: See above.
        preprocess: What is done to every image; None leaves them as they are.
        strict: Raise at the first file that cannot be read, where otherwise it is recorded in `skipped`.
        limits: What one image may cost.
        labels: One whole number per image, in place of what the source says.
        masks: For files: the folder of masks (called like the images, `_mask` may follow), or one path per image, None
            where the image is normal. False: none, though the set has some of its own.
        pages: Of files with several pages or frames (TIFF, GIF, WebP, PNG) the first, or all, as images of their own.
        layout: Where an array's axes leave a doubt: "NHW", "NHWC" or "NCHW".

    Raises:
        FileNotFoundError: no such path; the nearest names are given.
        ValueError: a folder without images, a part that is not there, an array in no known form.
        TypeError: nothing that images can be read from.

    Example:
        >>> open_images("builtin:gravel").read(0).shape
        torch.Size([1, 512, 512])
        >>> len(open_images(np.zeros((4, 8, 8, 3), np.uint8)))
        4
    """
    if isinstance(source, ImageCollection):
        if labels is not None or masks not in (None, False):
            raise TypeError("labels and masks belong to the source; give them where the collection is first opened")
        found = source.without_masks() if masks is False else source
        return found if preprocess is None else found.with_preprocess(preprocess)
    limits = limits or Limits()
    opened, skipped = _found(source, limits, layout)
    if pages == "all":
        opened = every_page(opened)
    if labels is not None:
        opened.labels, opened.classes = checked_labels(labels, len(opened), opened.name), None
    if masks is not None and masks is not False:
        opened = with_masks(opened, masks, None if labels is None else opened.labels)
    unread = next((item for item in skipped if item.is_image), None)
    if strict and unread is not None:
        raise UnreadableImage(unread.name, unread.reason)
    collection = ImageCollection(opened, preprocess=preprocess, strict=strict, skipped=skipped)
    return collection.without_masks() if masks is False else collection


def _found(source: Any, limits: Limits, layout: Layout | None) -> Found:
    if isinstance(source, str | Path):
        return path_source(str(source), limits, layout)
    if isinstance(source, ImageSource):
        return source, []
    if isinstance(source, Tensor | np.ndarray):
        return _given(array_source(source, type(source).__name__.lower(), layout=layout)), []
    if hasattr(source, "getbands"):  # a Pillow image
        return _given(DatasetSource([source], "image")), []
    if isinstance(source, DataLoader):
        return _given(_loader_source(source)), []
    if isinstance(source, IterableDataset):
        raise TypeError(f"an IterableDataset {_NO_ORDER}")
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        return listed_source([Path(item) for item in source], limits), []
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, dict | bytes):
        if len(source) == 0:
            raise ValueError(f"the {type(source).__name__} is empty: there is no image to open")
        return _given(DatasetSource(source, type(source).__name__)), []
    raise TypeError(
        f"images cannot be opened from a {type(source).__name__}; "
        "give a path, a list of paths, an image or a list of images, an array, a tensor, a Dataset or a DataLoader"
    )


def _given(source: ImageSource) -> ImageSource:
    """What lies in memory has no name of its own."""
    source.in_words = f"the {source.name} given"
    return source


def _loader_source(loader: "DataLoader[Any]") -> ImageSource:
    """The loader's dataset: its batch size and order do not matter here, the choice of a subset does."""
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(f"a DataLoader over an IterableDataset {_NO_ORDER}")
    dataset: Any = loader.dataset
    if isinstance(loader.sampler, SubsetRandomSampler):
        dataset = Subset(dataset, sorted(loader.sampler.indices))
    return DatasetSource(dataset, type(loader.dataset).__name__)
