"""What every ordered set of images is, served as tensors or arrays: places in a source, names, what was skipped."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from dracones.images.areas import DefectArea
from dracones.images.limits import Skipped, UnreadableImage
from dracones.images.name_list import NameList
from dracones.images.sources import ImageSource

if TYPE_CHECKING:
    from torch import Tensor


class ImageListing:
    """An ordered set of images in a source, of which views are taken; it loads no torch.

    A subclass gives the pixels: `ImageCollection` as tensors, `dracones.runtime.LineImages` as arrays.

    Args:
        source: where the images are.
        strict: raise at the first image that cannot be read, where otherwise it is recorded in `skipped`.
        skipped: what was passed over before.
    """

    def __init__(self, source: ImageSource, *, strict: bool = False, skipped: Sequence[Skipped] = ()) -> None:
        self.source = source
        self.strict = strict
        self._indices = np.arange(len(source))
        self._looks_at_masks = True
        # One record for a set and all its views, so that the end of a run can sum up everything passed over.
        self._skipped = {item.name: item for item in skipped}

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def name_of_source(self) -> str:
        """What the images were opened from, for messages."""
        return self.source.in_words or self.source.name

    @property
    def labels(self) -> np.ndarray | None:
        """int64 `[N]`, an index into `classes`; for inspection sets 1 = anomalous, 0 = normal; None where unknown."""
        return None if self.source.labels is None else self.source.labels[self._indices]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the labels, where known."""
        return self.source.classes

    @property
    def groups(self) -> list[str] | None:
        """For files: the first folder below the opened one that each lies in ('' for none), e.g. its kind of defect."""
        return None if self.source.groups is None else [self.source.groups[int(i)] for i in self._indices]

    @property
    def has_masks(self) -> bool:
        """Whether `mask` gives masks."""
        return self.source.has_masks and self._looks_at_masks

    @property
    def names(self) -> list[str]:
        """The name of every image, in order."""
        return [self.name(i) for i in range(len(self))]

    @property
    def skipped(self) -> list[Skipped]:
        """What was passed over so far, here or in any view of the same source, with reasons."""
        return list(self._skipped.values())

    @property
    def notes(self) -> list[str]:
        """What should be known of how the images were read so far, in words: files of which one page was read."""
        return self.source.notes()

    def skipped_summary(self) -> str:
        """`skipped` in one sentence: how many of each reason, with an example."""
        if not self._skipped:
            return "nothing was skipped"
        reasons = Counter(item.reason for item in self._skipped.values())
        first = {item.reason: item.name for item in reversed(self._skipped.values())}
        shown = [f"{count} x {reason} (e.g. {first[reason]})" for reason, count in reasons.most_common(5)]
        more = f"; {len(reasons) - 5} more reasons" if len(reasons) > 5 else ""
        return f"{len(self._skipped)} skipped: " + "; ".join(shown) + more

    def skip(self, error: UnreadableImage) -> None:
        """Record an image that could not be read, once, or raise where the collection is strict."""
        if self.strict:
            raise error
        self._skipped[error.name] = Skipped(error.name, error.reason)

    def refuse_unread(self, served: int) -> None:
        """Raise ValueError where there are images and none of them was read."""
        if served == 0 and len(self):
            raise ValueError(
                f"none of the {len(self)} images of {self.name_of_source} can be read: {self.skipped_summary()}"
            )

    def name(self, index: int) -> str:
        """The image's name: its path relative to the folder, or its place in the array."""
        return self.source.item_name(self._at(index))

    def names_digest(self) -> str:
        """A hash of all names in their order: whether the images are those of an earlier run."""
        if len(self) == len(self.source) and np.array_equal(self._indices, np.arange(len(self))):
            return self.source.names_digest()
        return NameList(self.name(i) for i in range(len(self))).digest()

    def native_shape(self, index: int) -> tuple[int, int, int]:
        """`(C, H, W)` before any treatment, from the header where there is one."""
        return self.source.shape(self._at(index))

    def subset(self, indices: "Sequence[int] | np.ndarray | Tensor") -> Self:
        """A view of some images, in the given order; a bool mask of all images will do too."""
        picked = np.asarray(indices)
        if picked.dtype == np.bool_:
            if picked.shape != (len(self),):
                raise ValueError(f"a mask of shape {picked.shape} for {len(self)} images")
            picked = np.flatnonzero(picked)
        picked = picked.astype(np.int64).reshape(-1)
        if len(picked) and (picked.min() < -len(self) or picked.max() >= len(self)):
            raise IndexError(f"indices from {picked.min()} to {picked.max()} in a collection of {len(self)} images")
        view = self._view()
        view._indices = self._indices[picked]
        return view

    def without_masks(self) -> Self:
        """The same images, as if no masks were known."""
        view = self._view()
        view._looks_at_masks = False
        return view

    @property
    def places(self) -> np.ndarray:
        """Where each image is in the source."""
        return self._indices

    def from_source(self, source: ImageSource) -> Self:
        """The same images out of another source of them, of the same length and order."""
        if len(source) != len(self.source):
            raise ValueError(f"a source of {len(source)} images in place of one of {len(self.source)}")
        view = self._view()
        view.source = source
        return view

    def inside(self, index: int) -> np.ndarray | None:
        """`[H, W]` bool, True where the image counts, at its own size; ``None``: everywhere."""
        return self.source.inside(self._at(index))

    def areas(self, index: int) -> Sequence[DefectArea] | None:
        """The defects of the image one by one, at its own size, with what saturates each; None where that is unknown.

        Raises:
            ValueError: a mask cannot be read, or says nothing that the set's configuration knows.
        """
        return self.source.areas(self._at(index)) if self.has_masks else None

    def _at(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of a collection of {len(self)}")
        return int(self._indices[index])

    def _view(self) -> Self:
        return copy.copy(self)
