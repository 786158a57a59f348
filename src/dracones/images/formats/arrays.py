"""Arrays and tensors in memory, and in `.npy` and `.npz` files."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from dracones.images.limits import Limits
from dracones.images.sources import ArraySource, EncodedSource, ImageSource

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["NHW", "NHWC", "NCHW"]
_COLOURS = (1, 3, 4)
_FEW = 32
_TRAIN_TEST = {"train": ("x_train", "train_images", "train"), "test": ("x_test", "test_images", "test")}


def array_source(
    array: "np.ndarray | Tensor",
    name: str,
    *,
    layout: Layout | None = None,
    labels: Any = None,
    classes: Sequence[str] | None = None,
) -> ArraySource:
    """Images `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`: uint8, uint16, bool, or float in [0, 1].

    Where the channels are is told by an axis of 1, 3 or 4, or else by one of at most 32 where the other is longer;
    where that leaves two readings, or none, `layout` must say.

    Raises:
        ValueError: the shape can be read in more than one way or in none; values leave [0, 1]; no such layout.
        TypeError: the type of the values has no known scale.
    """
    if layout not in (None, *get_args(Layout)):
        raise ValueError(f"layout={layout!r} is not known; expected {', '.join(get_args(Layout))}, or None to be told")
    array = _scaled(_plain(array), name)
    layout = layout or _layout_of(array.shape, name)
    if array.ndim != len(layout):
        raise ValueError(f"{name} has shape {array.shape}, which is not {layout}")
    if layout == "NHW":
        array = array[..., None]
    elif layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    if 0 in array.shape[1:]:
        raise ValueError(f"{name} has shape {array.shape}: images without pixels")
    return ArraySource(array, name, checked_labels(labels, len(array), name), classes)


def _plain(values: Any) -> np.ndarray:
    """An array of what is one, or a tensor."""
    if not hasattr(values, "detach"):
        return np.asanyarray(values)
    # NumPy has no bfloat16; what such a tensor holds fits float32 as it is.
    array: np.ndarray = (values.float() if str(values.dtype) == "torch.bfloat16" else values).detach().cpu().numpy()
    return array


def checked_labels(labels: Any, count: int, name: str) -> np.ndarray | None:
    """Labels as int64 `[count]`; None stays None, and so does a file's "no label" where it covers all images."""
    if labels is None:
        return None
    values = _plain(labels)
    values = values.reshape(-1)
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} labels for {count} images")
    if values.dtype.kind not in "iub":
        raise TypeError(f"{name}: labels of type {values.dtype}; whole numbers are expected")
    values = values.astype(np.int64)
    return None if count and (values < 0).all() else values


def npy_source(path: Path, layout: Layout | None = None) -> ArraySource:
    """The images in an `.npy` file, mapped into memory and not read until asked for."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy parses a header as Python text, and damaged text fails in as many ways as Python text can.
    except Exception as error:
        raise ValueError(f"{path} is no .npy file that can be read: {error}") from error
    return array_source(array, path.name, layout=layout)


def npz_source(path: Path, part: str | None, limits: Limits, layout: Layout | None = None) -> ImageSource:
    """The images in an `.npz` file: encoded (`data`, `offsets`, maybe `names`, `labels`, `classes`) or an array.

    `part` names the array where there are several, or `train` / `test` for `x_train`, `x_test` and their like. Labels
    are the array called like the images with y for x, or `labels` or `y` where these are as many as the images.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    # Of a version of the format still to come: NotImplementedError; names that are no UTF-8: UnicodeDecodeError.
    except (zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no .npz file that can be read: {error}") from error

    def load(key: str) -> np.ndarray:
        if sizes[key] > limits.max_array_bytes:
            raise ValueError(
                f"{path}: array '{key}' has {sizes[key]:,} bytes, more than the {limits.max_array_bytes:,} of "
                "Limits(max_array_bytes=...)"
            )
        try:
            with np.load(path, allow_pickle=False) as archive:
                array: np.ndarray | bytes = archive[key]
        # As above, and so do damaged archives and arrays that claim more than there is memory.
        except Exception as error:
            raise ValueError(f"{path}: array '{key}' cannot be read: {error}") from error
        if isinstance(array, bytes):  # numpy's answer for what does not begin as an array
            raise ValueError(f"{path}: '{key}' is no array in NumPy's format; it begins with {array[:12]!r}")
        return array

    def maybe(*keys: str) -> np.ndarray | None:
        return next((load(key) for key in keys if key in sizes), None)

    if {"data", "offsets"} <= set(sizes) and part is None:
        offsets, names, classes = load("offsets"), maybe("names"), maybe("classes")
        return EncodedSource(
            load("data"),
            offsets,
            path.name,
            names=None if names is None else names.reshape(-1).tolist(),
            labels=checked_labels(maybe("labels"), offsets.size - 1, path.name),
            classes=None if classes is None else classes.reshape(-1).tolist(),
            limits=limits,
        )
    key = _image_key(path, sizes, part)
    partner = {"x": "y", "images": "labels"}
    labels = maybe(*[key.replace(old, new, 1) for old, new in partner.items() if old in key])
    images = load(key)
    if labels is None:  # those of the whole file may be of other images than these
        labels = maybe(*[name for name in ("labels", "y") if name != key])
        labels = None if labels is None or (labels.size,) != images.shape[:1] else labels
    name = path.name if part is None else f"{path.name}:{part}"
    classes = maybe("classes")
    return array_source(
        images, name, layout=layout, labels=labels, classes=None if classes is None else classes.reshape(-1).tolist()
    )


def _image_key(path: Path, sizes: dict[str, int], part: str | None) -> str:
    if part is not None:
        found = [key for key in (part, *_TRAIN_TEST.get(part, ())) if key in sizes]
    elif len(sizes) == 1:
        found = list(sizes)
    else:
        found = [key for key in ("images", "data", "x", "arr_0") if key in sizes][:1]
    if not found:
        asked = "which of its arrays holds the images is not clear" if part is None else f"there is no array '{part}'"
        raise ValueError(f"{path}: {asked}; name one as {path.name}:NAME, available: {', '.join(sizes) or 'none'}")
    return str(found[0])


def _scaled(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} holds {array.dtype}; expected uint8, uint16, bool, or float in [0, 1]: convert it")
    array = array.astype(np.float32)
    if array.size:
        low, high = float(array.min()), float(array.max())
        if np.isnan(low):
            raise ValueError(f"{name} holds {int(np.isnan(array).sum())} NaN values; images are finite, in [0, 1]")
        if low < 0 or high > 1:
            cure = (
                "divide by 255, or give uint8" if low >= 0 and high <= 255 else "scale them, e.g. undo a normalisation"
            )
            raise ValueError(f"{name} holds floats from {low:g} to {high:g}; images are expected in [0, 1]: {cure}")
    return array


def _layout_of(shape: tuple[int, ...], name: str) -> Layout:
    if len(shape) == 3:
        if shape[2] in (3, 4) or shape[0] in (3, 4):
            raise ValueError(
                f"{name} of shape {shape} may be one colour image or {shape[0]} gray ones; "
                "add an axis for one image (array[None]), or say layout='NHW'"
            )
        return "NHW"
    if len(shape) == 4:
        first, last = shape[1] in _COLOURS, shape[3] in _COLOURS
        if not first and not last:
            # Other numbers of channels are few, and no image is that small.
            first, last = shape[1] <= _FEW < shape[3], shape[3] <= _FEW < shape[1]
        if first != last:
            return "NCHW" if first else "NHWC"
        reason = (
            "both axis 1 and axis 3 could be channels"
            if first
            else f"neither axis 1 nor axis 3 alone is 1, 3, 4 or at most {_FEW}"
        )
        raise ValueError(f"{name} of shape {shape}: {reason}; say layout='NCHW' or layout='NHWC'")
    raise ValueError(f"{name} has shape {shape}; expected [N, H, W], [N, H, W, C] or [N, C, H, W]")
