"""`open_images`: one word for every place that images come from."""

from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler

from .arrays import Layout, array_source, checked_labels, npy_source, npz_source
from .collection import ImageCollection
from .folder import FilesSource, find_images
from .idx import idx_source, idx_splits, is_idx
from .limits import Limits, Skipped, UnreadableImage
from .photographs import builtin_photographs, photograph_pixels
from .preprocess import Preprocess
from .reading import SUFFIXES
from .sources import ArraySource, DatasetSource, ImageSource


def open_images(
    source: Any,
    *,
    preprocess: Preprocess | None = None,
    strict: bool = False,
    limits: Limits | None = None,
    labels: Any = None,
    layout: Layout | None = None,
) -> ImageCollection:
    """Open images wherever they are; nothing is decoded yet.

    `source` is one of

    - a folder (searched to the bottom, natural order), an image file, a pattern (`parts/*/good/*.png`), a list of
      files;
    - a folder of idx files as torchvision leaves them (`MNIST/raw:train`, `MNIST:test`) or one such file;
    - an `.npz` or `.npy` file, with the array's name behind a colon where there are several (`mnist.npz:x_test`);
    - a built-in photograph (`builtin:gravel`);
    - an array or tensor, `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` (uint8, uint16 or float in [0, 1]);
    - a map-style torch `Dataset`, or the `Dataset` of a `DataLoader`, or anything else with `len()` and `[index]`;
    - an `ImageCollection`, which is returned as a view.

    Args:
        source: See above.
        preprocess: What is done to every image; None leaves them as they are.
        strict: Raise at the first file that cannot be read, where otherwise it is recorded in `skipped`.
        limits: What one image may cost.
        labels: One whole number per image, in place of what the source says.
        layout: Where an array's axes leave a doubt: "NHW", "NHWC" or "NCHW".

    Raises:
        FileNotFoundError: no such path; the nearest names are given.
        ValueError: a folder without images, a part that is not there, an array in no known form.
        TypeError: nothing that images can be read from.

    Example:
        >>> open_images("builtin:gravel").read(0).shape
        torch.Size([1, 512, 512])
        >>> import numpy as np
        >>> len(open_images(np.zeros((4, 8, 8, 3), np.uint8)))
        4
    """
    if isinstance(source, ImageCollection):
        return source if preprocess is None else source.with_preprocess(preprocess)
    limits = limits or Limits()
    opened, skipped = _source_of(source, limits, layout)
    if labels is not None:
        opened.labels = checked_labels(labels, len(opened), opened.name)
    if strict and skipped:
        raise UnreadableImage(*skipped[0])
    return ImageCollection(opened, preprocess=preprocess, strict=strict, skipped=skipped)


def _source_of(source: Any, limits: Limits, layout: Layout | None) -> tuple[ImageSource, list[Skipped]]:
    if isinstance(source, str | Path):
        return _named(str(source), limits, layout)
    if isinstance(source, Tensor | np.ndarray):
        return array_source(source, type(source).__name__.lower(), layout=layout), []
    if isinstance(source, DataLoader):
        return _loader_source(source), []
    if isinstance(source, IterableDataset):
        raise TypeError(
            "an IterableDataset has no length and no order to go back to; give a map-style Dataset or a tensor"
        )
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | Path) for item in source):
        return _listed([Path(item) for item in source], limits), []
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, dict):
        if len(source) == 0:
            raise ValueError(f"the {type(source).__name__} is empty: there is no image to open")
        return DatasetSource(source, type(source).__name__), []
    raise TypeError(
        f"images cannot be opened from a {type(source).__name__}; "
        "give a path, a list of paths, an array, a tensor, a Dataset or a DataLoader"
    )


def _named(spec: str, limits: Limits, layout: Layout | None) -> tuple[ImageSource, list[Skipped]]:
    kind, _, rest = spec.partition(":")
    if kind == "builtin" and not Path(spec).exists():
        return _builtin(rest), []
    path, part = _path_and_part(spec)
    if path is None:
        if has_magic(spec):
            return _listed([Path(p) for p in sorted(glob(spec, recursive=True))], limits, pattern=spec), []  # noqa: PTH207 (absolute patterns too)
        raise _no_such_path(spec)
    if path.is_dir():
        return _folder(path, part, spec, limits)
    if path.suffix == ".npz":
        return npz_source(path, part, limits, layout), []
    if part is not None:
        raise ValueError(f"{path} is a file without parts; ':{part}' names nothing in it")
    if path.suffix == ".npy":
        return npy_source(path, layout), []
    if is_idx(path):
        return idx_source(path, path.name, limits), []
    if path.suffix.lower() in SUFFIXES:
        return FilesSource([path], path.parent, path.name, limits), []
    raise ValueError(
        f"{path} is not read as images: expected a folder, an image ({', '.join(sorted(SUFFIXES))}), "
        ".npz, .npy or an idx file"
    )


def _path_and_part(spec: str) -> tuple[Path | None, str | None]:
    """The path, and what follows its last colon where the whole is no path; (None, ...) where nothing exists."""
    whole = Path(spec).expanduser()
    if whole.exists():
        return whole, None
    before, colon, part = spec.rpartition(":")
    if colon and before and Path(before).expanduser().exists():
        return Path(before).expanduser(), part
    return None, None


def _folder(path: Path, part: str | None, spec: str, limits: Limits) -> tuple[ImageSource, list[Skipped]]:
    for place in (path, path / "raw"):
        splits = idx_splits(place) if place.is_dir() else {}
        if splits:
            chosen = _chosen(splits, part, spec)
            return idx_source(splits[chosen], f"{path.name}:{chosen}", limits), []
    if part is not None:
        raise ValueError(
            f"{path} is a folder of images and has no part ':{part}'; name the folder inside it, if there is one"
        )
    images, skipped = find_images(path)
    if not images:
        found = f"{len(skipped)} other files, e.g. {skipped[0].name}" if skipped else "it is empty"
        raise ValueError(f"no images in {path} ({found}); expected {', '.join(sorted(SUFFIXES))}")
    return FilesSource(images, path, path.name or str(path), limits), skipped


def _chosen(splits: dict[str, Any], part: str | None, spec: str) -> str:
    if part is None and len(splits) == 1:
        return next(iter(splits))
    if part in splits:
        return str(part)
    base = spec if part is None else spec.rpartition(":")[0]
    what = "has several parts" if part is None else f"has no part '{part}'"
    raise ValueError(f"{base} {what}; name one: {', '.join(f'{base}:{name}' for name in splits)}")


def _listed(paths: Sequence[Path], limits: Limits, pattern: str | None = None) -> ImageSource:
    files = [path for path in paths if path.is_file() and path.suffix.lower() in SUFFIXES] if pattern else list(paths)
    if pattern is not None and not files:
        raise ValueError(f"no image files match {pattern}")
    for path in files:
        if not path.exists():
            raise _no_such_path(str(path))
    return FilesSource(files, None, pattern or f"{len(files)} files", limits)


def _loader_source(loader: "DataLoader[Any]") -> ImageSource:
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(
            "a DataLoader over an IterableDataset has no order to go back to; give a map-style Dataset or a tensor"
        )
    source = DatasetSource(loader.dataset, type(loader.dataset).__name__)
    if isinstance(loader.sampler, SubsetRandomSampler):
        from torch.utils.data import Subset

        places = sorted(loader.sampler.indices)
        subset = DatasetSource(Subset(loader.dataset, places), source.name)
        subset.labels, subset.classes = None if source.labels is None else source.labels[places], source.classes
        return subset
    return source


def _builtin(name: str) -> ImageSource:
    if not name:
        raise ValueError(f"'builtin:' needs a photograph's name: {', '.join(builtin_photographs())}")
    return ArraySource(photograph_pixels(name)[None], f"builtin:{name}")


def _no_such_path(spec: str) -> FileNotFoundError:
    path = Path(spec).expanduser()
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    except OSError:
        names = []
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    hint = (
        f"; did you mean {' or '.join(str(parent / name) for name in near)}?"
        if near
        else f"; {parent} has no '{path.name}'"
    )
    return FileNotFoundError(f"no such file or folder: {spec}{hint}")
