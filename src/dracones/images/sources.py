"""Where images come from: one small contract for folders, archives, arrays and datasets alike."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from dracones.images.areas import DefectArea
from dracones.images.digests import digest_of_array, digest_of_bytes
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.name_list import NameList
from dracones.images.names import shown
from dracones.images.pixels import checked_float
from dracones.images.reading import decode, shape_of

if TYPE_CHECKING:
    from torch import Tensor


class ImageSource(ABC):
    """An ordered set of images at their native size and depth.

    A subclass gives `__len__`, `item_name`, `read` and `digest`; it may know labels, masks, a shape common to all, and
    may serve many images at once (`block`); `in_words` is what messages call it where its name, which begins those of
    the images, reads badly in a sentence. Indices are those of the source; order never changes.
    """

    name: str
    in_words: str | None = None
    labels: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    has_masks: bool = False
    groups: Sequence[str] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def item_name(self, index: int) -> str:
        """A name for reports: the path relative to the folder, or the place in the array."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """`[H, W, C]`, uint8, uint16 or float32 in [0, 1]; raises `UnreadableImage`."""

    @abstractmethod
    def digest(self, index: int) -> bytes:
        """A hash of the image's content, whatever its name or place."""

    def shape(self, index: int) -> tuple[int, int, int]:
        """`(C, H, W)`, from a header where there is one; raises `UnreadableImage`."""
        height, width, channels = self.read(index).shape
        return channels, height, width

    def block(self, indices: np.ndarray) -> "Tensor | None":  # noqa: ARG002
        """Many images `[B, C, H, W]` in their native type at once, where they lie in memory alike; else None."""
        return None

    def names_digest(self) -> str:
        """A hash of all names in their order: whether a list is the one that it was."""
        return NameList(self.item_name(i) for i in range(len(self))).digest()

    def notes(self) -> list[str]:
        """What a reader of the results should know of how the images were read, in words."""
        return []

    def mask(self, index: int) -> np.ndarray | None:  # noqa: ARG002
        """`[H, W]` bool, True where anomalous; None where the source knows no masks."""
        return None

    def areas(self, index: int) -> Sequence[DefectArea] | None:  # noqa: ARG002
        """The defects of the image one by one, with what saturates each; None where the source knows no such thing."""
        return None

    def inside(self, index: int) -> np.ndarray | None:  # noqa: ARG002
        """`[H, W]` bool, True in the region of interest; None where all of the image counts."""
        return None


class ArraySource(ImageSource):
    """Images of one size, held as one array `[N, H, W, C]` (a memory map will do)."""

    def __init__(
        self, array: np.ndarray, name: str, labels: np.ndarray | None = None, classes: Sequence[str] | None = None
    ) -> None:
        self.array = array
        self.name = name
        self.labels = labels
        self.classes = None if classes is None else tuple(classes)

    def __len__(self) -> int:
        return len(self.array)

    @override
    def item_name(self, index: int) -> str:
        return f"{self.name}[{index}]"

    @override
    def names_digest(self) -> str:
        # The names follow from these two; a million of them need not be made.
        return NameList([self.name, str(len(self))]).digest()

    @override
    def read(self, index: int) -> np.ndarray:
        return np.array(self.array[index])

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        _, height, width, channels = self.array.shape
        return channels, height, width

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_array(self.read(index))

    @override
    def block(self, indices: np.ndarray) -> "Tensor":
        import torch

        # Picking by index copies, so the tensor never shares memory with the source.
        return torch.from_numpy(np.ascontiguousarray(self.array[indices].transpose(0, 3, 1, 2)))


class BytesSource(ImageSource):
    """Encoded images, wherever their bytes are: a subclass gives `_bytes`, `limits` and what names them."""

    limits: Limits

    @abstractmethod
    def _bytes(self, index: int) -> bytes:
        """One image's file as it is stored; `UnreadableImage` where it cannot be had."""

    @override
    def read(self, index: int) -> np.ndarray:
        return decode(self._bytes(index), self.item_name(index), self.limits)

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        return shape_of(self._bytes(index), self.item_name(index), self.limits)

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_bytes(self._bytes(index))


class EncodedSource(BytesSource):
    """Encoded images (PNG, JPEG, WebP, ...) joined in one byte array: image i is `data[offsets[i]:offsets[i + 1]]`."""

    def __init__(
        self,
        data: np.ndarray,
        offsets: np.ndarray,
        name: str,
        *,
        names: Sequence[str] | None = None,
        labels: np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        offsets = np.asarray(offsets)
        if data.dtype != np.uint8 or data.ndim != 1:
            raise ValueError(f"{name}: 'data' is {data.dtype} of shape {data.shape}; expected uint8 of one dimension")
        if (
            offsets.dtype.kind not in "iu"
            or offsets.ndim != 1
            or len(offsets) < 1
            or (offsets[1:] < offsets[:-1]).any()
            or offsets[0] < 0
            or offsets[-1] > len(data)
        ):
            raise ValueError(
                f"{name}: 'offsets' must rise from 0 to at most the {len(data):,} bytes of 'data', whole numbers in "
                f"one dimension; got {offsets.dtype} of shape {offsets.shape}"
            )
        if names is not None and len(names) != len(offsets) - 1:
            raise ValueError(f"{name}: {len(names)} 'names' for {len(offsets) - 1} images")
        self.data, self.offsets, self.name = data, offsets.astype(np.int64), name
        self.names = None if names is None else [shown(str(n)) for n in names]
        self.labels = labels
        # Classes without a label among them ("unlabelled") name nothing.
        self.classes = None if classes is None or labels is None else tuple(str(c) for c in classes)
        self.limits = limits or Limits()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @override
    def item_name(self, index: int) -> str:
        return f"{self.name}[{index}]" if self.names is None else self.names[index]

    def _bytes(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()


class DatasetSource(ImageSource):
    """Any object with `len()` and `[index]`: items are an image, (image, label, ...), or a mapping that holds an image.

    An image is a Pillow image, an array `[H, W]` or `[H, W, C]`, or a tensor `[H, W]` or `[C, H, W]`; floats in [0, 1].
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.name = name
        self.labels, self.classes = labels_of_dataset(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    @override
    def item_name(self, index: int) -> str:
        return f"{self.name}[{index}]"

    @override
    def read(self, index: int) -> np.ndarray:
        name = self.item_name(index)
        try:
            item = self.dataset[index]
        # The dataset is somebody else's code and may fail in any way; the item is then unreadable, the run goes on.
        except Exception as error:
            raise UnreadableImage(name, f"the dataset raised {type(error).__name__}: {error}") from error
        return array_of_item(item, name)

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_array(self.read(index))


def labels_of_dataset(dataset: Any) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Labels and class names of a dataset that tells them unread, as torch's and torchvision's do."""
    from torch import Tensor
    from torch.utils.data import Subset, TensorDataset

    if isinstance(dataset, Subset):
        labels, classes = labels_of_dataset(dataset.dataset)
        return None if labels is None else labels[np.asarray(dataset.indices, dtype=np.int64)], classes
    found: Any
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) > 1:
        found = dataset.tensors[1]
    else:
        found = next(
            (values for name in ("targets", "labels") if (values := getattr(dataset, name, None)) is not None), None
        )
    classes = getattr(dataset, "classes", None)
    named = None if classes is None else tuple(str(name) for name in classes)
    if found is None:
        return None, named
    values = np.asarray(found.cpu() if isinstance(found, Tensor) else found)
    if values.shape != (len(dataset),) or values.dtype.kind not in "iub":
        return None, named
    return values.astype(np.int64), named


def array_of_item(item: Any, name: str) -> np.ndarray:
    """`[H, W, C]` from what a dataset gives.

    Raises:
        TypeError: no image is found in the item.
        UnreadableImage: floats outside [0, 1], or a type without a known scale.
    """
    if isinstance(item, tuple | list) and item:
        return array_of_item(item[0], name)
    if isinstance(item, dict):
        for key in ("image", "img", "pixel_values", "images", "x"):
            if key in item:
                return array_of_item(item[key], name)
        raise TypeError(f"{name} is a mapping with keys {sorted(map(str, item))}; expected one called 'image'")
    if _is_tensor(item):
        array: np.ndarray = _without_bfloat16(item).detach().cpu().numpy()
        array = array.transpose(1, 2, 0) if array.ndim == 3 else array
    elif hasattr(item, "getbands"):  # a Pillow image
        from dracones.images.reading import from_pillow

        array = from_pillow(item, name)
    elif isinstance(item, np.ndarray):
        array = item
    else:
        raise TypeError(
            f"{name} is a {type(item).__name__}; expected an image, a tensor, an array, or a tuple that starts with one"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise UnreadableImage(
            name, f"an image of shape {array.shape}; expected [H, W], [H, W, C] or a tensor [C, H, W]"
        )
    if array.dtype.kind == "f":
        return checked_float(array, name)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(name, f"pixels of type {array.dtype}; give uint8, uint16 or float in [0, 1]")
    return np.array(array)


def _without_bfloat16(tensor: Any) -> Any:
    """NumPy has no bfloat16; what such a tensor holds fits float32 as it is."""
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def _is_tensor(item: Any) -> bool:
    import torch

    return isinstance(item, torch.Tensor)
