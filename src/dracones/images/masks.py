"""Which pixels of an image are anomalous: mask files matched to their images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dracones.images.folder import FilesSource, find_images
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.reading import decode_labels, read_bytes
from dracones.images.sources import ImageSource

MaskPaths = Path | tuple[Path, ...] | None
"""The mask of one image, all of its masks, or none."""


_NEARLY_ALL = 0.95
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")


class MaskedFiles(FilesSource):
    """Image files of which some have a mask, or several; the other normal ones are normal everywhere.

    Where an anomalous image has no mask nobody knows where it is anomalous: its mask is None.
    """

    has_masks = True

    def __init__(
        self,
        paths: Sequence[Path],
        root: Path,
        name: str,
        limits: Limits,
        masks: Sequence[MaskPaths],
        labels: np.ndarray | None = None,
    ) -> None:
        super().__init__(paths, root, name, limits)
        if len(masks) != len(self.paths):
            raise ValueError(
                f"{name}: {len(masks)} masks for {len(self.paths)} images; give None for an image that is normal"
            )
        self.masks = [_as_tuple(mask) for mask in masks]
        if labels is not None:
            self.labels, self.classes = labels, ("normal", "anomalous")

    def mask(self, index: int) -> np.ndarray | None:
        """`[H, W]` bool at the image's own size, all its masks joined; None where none is known.

        Raises:
            ValueError: the mask cannot be read, or is of another size than its image.
        """
        if not self.has_masks:
            return None
        _, height, width = self.shape(index)
        paths = self.masks[index]
        if not paths:
            anomalous = self.labels is not None and self.labels[index] == 1
            return None if anomalous else np.zeros((height, width), dtype=bool)
        joined: np.ndarray = np.any([self._of_size(path, height, width, index) for path in paths], axis=0)
        return joined

    def _of_size(self, path: Path, height: int, width: int, index: int) -> np.ndarray:
        mask = read_mask(path, self.limits)
        if mask.shape == (height, width):
            return mask
        turned = mask.shape == (width, height)
        hint = (
            "the photo is turned by its EXIF orientation and the mask is not: save both upright"
            if turned
            else "a mask has its image's own size"
        )
        raise ValueError(
            f"mask {path} is {mask.shape[0]}x{mask.shape[1]} pixels, its image {self.item_name(index)} "
            f"{height}x{width}; {hint}"
        )

    def doubts(self) -> list[str]:
        """Masks that say too little or too much, in words: nothing marked in an anomalous image, or nearly all of one.

        Reads every mask once.
        """
        found = []
        for index, paths in enumerate(self.masks):
            anomalous = self.labels is None or self.labels[index] == 1
            if not anomalous:
                continue
            if not paths:
                found.append(f"{self.item_name(index)} is anomalous and has no mask")
                continue
            mask = self.mask(index)
            share = 0.0 if mask is None else float(mask.mean())
            if share == 0:
                found.append(f"the mask of {self.item_name(index)} marks nothing, though the image is anomalous")
            elif share > _NEARLY_ALL:
                found.append(f"the mask of {self.item_name(index)} marks {share:.0%} of it: is it the other way round?")
        return found


def read_mask(path: Path, limits: Limits) -> np.ndarray:
    """`[H, W]` bool: anomalous where a label is not zero. A mask is read as labels and not as a picture.

    What is transparent is not marked, whatever colour lies under it; a palette counts by its index; 0/1, 0/255 and any
    other labels mark alike. In files that lose detail (JPEG, lossy WebP) values from half of the brightest on are
    marks, so that 0/1 and 0/255 are both told from the traces of compression.

    Raises:
        ValueError: the file cannot be read as an image.
    """
    return mask_labels(path, limits) > 0


def mask_labels(path: Path, limits: Limits) -> np.ndarray:
    """`[H, W]`: the label of each pixel, the largest of its channels, 0 where it is not marked; see `read_mask`.

    Raises:
        ValueError: the file cannot be read as an image.
    """
    try:
        labels, alpha = decode_labels(read_bytes(path, str(path), limits), str(path), limits)
    except UnreadableImage as error:
        raise ValueError(f"mask {error}") from error
    if path.suffix.lower() in _LOSSY:
        labels = labels * (labels >= max(float(labels.max()) / 2, np.finfo(np.float32).tiny))
    found: np.ndarray = labels.max(axis=2) * (alpha > 0)
    return found


def _as_tuple(mask: MaskPaths) -> tuple[Path, ...]:
    return () if mask is None else (mask,) if isinstance(mask, Path) else mask


def masks_beside(names: Sequence[str], folder: Path, *, of_these_alone: bool = True) -> list[MaskPaths]:
    """For each image name (a path relative to its folder) the mask in `folder` at the same place, or None.

    A mask is called like its image, with or without `_mask` behind it, and may be of another file type; a folder called
    like the image holds several (MVTec LOCO).

    Args:
        names: Of the images.
        folder: Searched to the bottom.
        of_these_alone: Refuse masks that belong to none of the images.

    Raises:
        ValueError: a mask belongs to no image, two masks to one image, or no mask to any.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of masks: {folder}")
    keys = [_key(name, is_mask=False) for name in names]
    known = set(keys)
    found: dict[str, tuple[Path, ...]] = {}
    for path in find_images(folder)[0]:
        name = path.relative_to(folder)
        key = _key(name.as_posix())
        if key not in known and name.parent.as_posix() in known:
            key = name.parent.as_posix()
            found[key] = (*found.get(key, ()), path)
            continue
        if key in found:
            raise ValueError(f"two masks for one image: {found[key][0]} and {path}")
        found[key] = (path,)
    strays = sorted(set(found) - set(keys)) if of_these_alone else []
    if not found:
        raise ValueError(f"no masks in {folder}")
    if strays:
        raise ValueError(
            f"{len(strays)} of {len(found)} masks in {folder} belong to no image, e.g. {found[strays[0]][0]}; images "
            f"are called like {names[0]}, their masks like {Path(names[0]).with_suffix('').as_posix()}_mask.png"
        )
    return [found.get(key) for key in keys]


def with_masks(
    source: ImageSource, masks: str | Path | Sequence[str | Path | None], labels: np.ndarray | None
) -> MaskedFiles:
    """The same files with their masks, from a folder or one by one; without `labels` those with a mask are anomalous.

    Raises:
        TypeError: the images are not files.
        ValueError: masks and images do not belong together.
    """
    if not isinstance(source, FilesSource):
        raise TypeError(f"masks are matched to image files; {source.name} holds none")
    names = [source.item_name(i) for i in range(len(source))]
    if isinstance(masks, str | Path):
        paths = masks_beside(names, Path(masks))
        # A folder of masks is for anomalous images; a normal one among them has to be marked as such.
        known = [int(not {"good", "ok"} & set(Path(name).parts)) for name in names]
        if labels is None:
            labels = np.asarray(known, dtype=np.int64)
    else:
        named = [None if mask is None else Path(mask) for mask in masks]
        absent = next((path for path in named if path is not None and not path.is_file()), None)
        if absent is not None:
            raise FileNotFoundError(f"no such mask: {absent}")
        paths = list(named)
    if labels is None:
        labels = np.array([int(path is not None) for path in paths], dtype=np.int64)
    return MaskedFiles(source.paths, source.root, source.name, source.limits, paths, labels)


def _key(name: str, *, is_mask: bool = True) -> str:
    stem = Path(name).with_suffix("").as_posix()
    return stem.removesuffix("_mask") if is_mask else stem
