"""Only a region of each image counts: what lies outside of it is one colour, whatever it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from dracones.images.areas import DefectArea
from dracones.images.digests import digest_of_array
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.masks import masks_beside, read_mask
from dracones.images.sources import ImageSource

if TYPE_CHECKING:
    from dracones.images.collection import ImageCollection

_SAMPLE = 64


@dataclass(frozen=True, eq=False)
class Interest:
    """A region of interest.

    Attributes:
        mask: `[H, W]` bool, True where an image counts, the same for all images; ``None``: each image has its own.
        fill: the colour outside, a number in [0, 1] a channel.
    """

    mask: NDArray[np.bool_] | None
    fill: tuple[float, ...]

    def is_of(self, other: "Interest") -> bool:
        """Whether two say the same of an image."""
        if self.fill != other.fill or (self.mask is None) != (other.mask is None):
            return False
        return self.mask is None or other.mask is None or np.array_equal(self.mask, other.mask)


class InterestSource(ImageSource):
    """Images whose outside is filled, at their own size and before anything else is done to them.

    So no pixel outside can change what is learnt, a score or a map: not through a filter that reaches over the border,
    not through resizing. An image whose region is empty, or of another size than it, is unreadable.

    Args:
        source: the images.
        interest: the region and the colour outside.
        paths: of each image's own region, where the interest names none for all.
    """

    def __init__(self, source: ImageSource, interest: Interest, paths: Sequence[Path] | None = None) -> None:
        self.source, self.interest, self.paths_of_regions = source, interest, paths
        self.name, self.labels, self.classes = source.name, source.labels, source.classes
        self.groups, self.has_masks = source.groups, source.has_masks
        self._limits = getattr(source, "limits", None) or Limits()

    def __len__(self) -> int:
        return len(self.source)

    @override
    def item_name(self, index: int) -> str:
        return self.source.item_name(index)

    @override
    def read(self, index: int) -> np.ndarray:
        image = self.source.read(index)
        inside = self.inside(index)
        if inside.shape != image.shape[:2]:
            raise UnreadableImage(self.item_name(index), _another_size(inside.shape, image.shape[:2]))
        return np.where(inside[:, :, None], image, _colour(self.interest.fill, image))

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        return self.source.shape(index)

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_array(self.read(index))

    @override
    def notes(self) -> list[str]:
        return self.source.notes()

    @override
    def mask(self, index: int) -> np.ndarray | None:
        """What is anomalous inside."""
        mask = self.source.mask(index)
        return None if mask is None else mask & self.inside(index)

    @override
    def areas(self, index: int) -> Sequence[DefectArea] | None:
        """The defects of the whole image: whoever counts pixels cuts them by `inside`."""
        return self.source.areas(index)

    @override
    def inside(self, index: int) -> NDArray[np.bool_]:
        """`[H, W]`, True where the image counts.

        Raises:
            UnreadableImage: its own region cannot be read, or is empty.
        """
        if self.interest.mask is not None:
            return self.interest.mask
        if self.paths_of_regions is None:
            raise UnreadableImage(self.item_name(index), "it has no region of interest")
        try:
            inside: NDArray[np.bool_] = read_mask(self.paths_of_regions[index], self._limits)
        except ValueError as error:
            raise UnreadableImage(self.item_name(index), f"region of interest: {error}") from error
        if not inside.any():
            raise UnreadableImage(self.item_name(index), "its region of interest is empty")
        return inside


def within(images: "ImageCollection", roi: Any, fill: Sequence[float] | None = None) -> "ImageCollection":
    """The images with everything outside a region of interest in one colour.

    Args:
        images: not yet restricted.
        roi: an image file or array `[H, W]` for all images, nonzero where they count; or a folder with one file for
            each, called like it. Of the images' own size.
        fill: the colour outside; the mean of what lies inside up to 64 of the images if not given.

    Raises:
        ValueError: an empty region, one of another size, or images without one.
    """
    if isinstance(images.source, InterestSource):
        raise ValueError(f"{images.name_of_source} has a region of interest already")
    mask, paths = _read(roi, images)
    if mask is not None:
        _check_sizes(mask, images)
    source = InterestSource(images.source, Interest(mask, tuple(fill or ())), paths)
    if fill is None:
        source.interest = Interest(mask, _mean_inside(images, source))
    return images.from_source(source)


def restricted(images: "ImageCollection", interest: Interest) -> "ImageCollection":
    """The images within a region that is known, one for all.

    Raises:
        ValueError: the region is of another size than the images.
    """
    if interest.mask is None:
        raise ValueError("each image has a region of its own; give them (roi=FOLDER)")
    return within(images, interest.mask, interest.fill)


def _read(roi: Any, images: "ImageCollection") -> tuple[NDArray[np.bool_] | None, list[Path] | None]:
    if not isinstance(roi, str | Path):
        mask = np.asarray(roi) != 0
    elif Path(roi).is_dir():
        names = [images.source.item_name(i) for i in range(len(images.source))]
        found = masks_beside(names, Path(roi), of_these_alone=False)
        chosen = [path[0] if isinstance(path, tuple) else path for path in found]
        paths = [path for path in chosen if path is not None]
        if len(paths) < len(chosen):
            lacking = names[next(i for i, path in enumerate(chosen) if path is None)]
            raise ValueError(f"{len(chosen) - len(paths)} images have no region of interest in {roi}, e.g. {lacking}")
        return None, paths
    elif not Path(roi).is_file():
        raise FileNotFoundError(f"no such region of interest: {roi}")
    else:
        mask = read_mask(Path(roi), Limits())
    if mask.ndim != 2:
        raise ValueError(f"region of interest: expected [height, width], got shape {mask.shape}")
    if not mask.any():
        raise ValueError("the region of interest is empty: nothing in it is marked, so nothing would count")
    return mask, None


def _check_sizes(mask: NDArray[np.bool_], images: "ImageCollection") -> None:
    for name, (_, height, width) in images.sample_shapes(_SAMPLE).items():
        if (height, width) != mask.shape:
            raise ValueError(f"{name}: {_another_size(mask.shape, (height, width))}")


def _another_size(region: tuple[int, ...], image: tuple[int, ...]) -> str:
    return (
        f"the region of interest is {region[0]}x{region[1]} pixels (height x width) and the image "
        f"{image[0]}x{image[1]}; a region has its images' own size"
    )


def _mean_inside(images: "ImageCollection", source: InterestSource) -> tuple[float, ...]:
    """The mean colour inside, in 256 levels, of some images spread evenly."""
    sums: list[NDArray[np.float64]] = []
    for place in np.unique(np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).round().astype(int)):
        index = int(images.places[place])
        try:
            image, inside = source.source.read(index), source.inside(index)
        except UnreadableImage:
            continue
        if inside.shape == image.shape[:2]:
            sums.append(image[inside].mean(axis=0) / (1.0 if image.dtype.kind == "f" else np.iinfo(image.dtype).max))
    if not sums:
        raise ValueError(
            f"no image of {images.name_of_source} is left within its region of interest: regions are empty, of another "
            "size, or the images cannot be read"
        )
    depth = len(sums[0])
    mean = np.mean([each for each in sums if len(each) == depth], axis=0)
    return tuple(float(np.rint(value * 255) / 255) for value in mean)


def _colour(fill: tuple[float, ...], image: np.ndarray) -> np.ndarray:
    """The colour in an image's own type and depth: gray for gray images, gray as equal channels otherwise."""
    colour = np.asarray(fill if len(fill) == image.shape[2] else [float(np.mean(fill))] * image.shape[2])
    levels = colour if image.dtype.kind == "f" else np.rint(colour * np.iinfo(image.dtype).max)
    return np.asarray(levels, dtype=image.dtype)
