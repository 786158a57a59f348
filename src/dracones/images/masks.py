"""Which pixels of an image are anomalous: mask files matched to their images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dracones.images.folder import FilesSource, find_images
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.reading import decode, read_bytes
from dracones.images.sources import ImageSource

_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")


class MaskedFiles(FilesSource):
    """Image files of which some have a mask; the others are normal everywhere."""

    has_masks = True

    def __init__(
        self,
        paths: Sequence[Path],
        root: Path,
        name: str,
        limits: Limits,
        masks: Sequence[Path | None],
        labels: np.ndarray | None = None,
    ) -> None:
        super().__init__(paths, root, name, limits)
        if len(masks) != len(self.paths):
            raise ValueError(
                f"{name}: {len(masks)} masks for {len(self.paths)} images; give None for an image that is normal"
            )
        self.masks = list(masks)
        if labels is not None:
            self.labels, self.classes = labels, ("normal", "anomalous")

    def mask(self, index: int) -> np.ndarray | None:
        """`[H, W]` bool at the image's own size; None where the set has no masks.

        Raises:
            ValueError: the mask cannot be read, or is of another size than its image.
        """
        if not self.has_masks:
            return None
        _, height, width = self.shape(index)
        path = self.masks[index]
        if path is None:
            return np.zeros((height, width), dtype=bool)
        mask = read_mask(path, self.limits)
        if mask.shape != (height, width):
            raise ValueError(
                f"mask {path} is {mask.shape[0]}x{mask.shape[1]} pixels, its image {self.item_name(index)} "
                f"{height}x{width}; a mask has its image's own size"
            )
        return mask


def read_mask(path: Path, limits: Limits) -> np.ndarray:
    """`[H, W]` bool: anomalous where any channel is not zero (at least half, in files that lose detail, such as JPEG).

    Raises:
        ValueError: the file cannot be read as an image.
    """
    try:
        image = decode(read_bytes(path, str(path), limits), str(path), limits)
    except UnreadableImage as error:
        raise ValueError(f"mask {error}") from error
    top = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    marked: np.ndarray = image >= top / 2 if path.suffix.lower() in _LOSSY else image > 0
    anomalous: np.ndarray = np.any(marked, axis=2)
    return anomalous


def masks_beside(names: Sequence[str], folder: Path) -> list[Path | None]:
    """For each image name (a path relative to its folder) the mask in `folder` at the same place, or None.

    A mask is called like its image, with or without `_mask` behind it, and may be of another file type.

    Raises:
        ValueError: a mask belongs to no image, two masks to one image, or no mask to any.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of masks: {folder}")
    found: dict[str, Path] = {}
    for path in find_images(folder)[0]:
        key = _key(path.relative_to(folder).as_posix())
        if key in found:
            raise ValueError(f"two masks for one image: {found[key]} and {path}")
        found[key] = path
    keys = [_key(name, is_mask=False) for name in names]
    strays = sorted(set(found) - set(keys))
    if not found:
        raise ValueError(f"no masks in {folder}")
    if strays:
        raise ValueError(
            f"{len(strays)} of {len(found)} masks in {folder} belong to no image, e.g. {found[strays[0]]}; images are "
            f"called like {names[0]}, their masks like {Path(names[0]).with_suffix('').as_posix()}_mask.png"
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
        known = labels if labels is not None else [int("good" not in Path(name).parts) for name in names]
        require_masks(names, paths, known)
    else:
        paths = [None if mask is None else Path(mask) for mask in masks]
        absent = next((path for path in paths if path is not None and not path.is_file()), None)
        if absent is not None:
            raise FileNotFoundError(f"no such mask: {absent}")
    if labels is None:
        labels = np.array([int(path is not None) for path in paths], dtype=np.int64)
    return MaskedFiles(source.paths, source.root, source.name, source.limits, paths, labels)


def require_masks(names: Sequence[str], masks: Sequence[Path | None], labels: Sequence[int] | np.ndarray) -> None:
    """Refuse an anomalous image (label 1) without a mask: its pixels would count as normal.

    Raises:
        ValueError: naming how many and the first.
    """
    missing = [name for name, mask, label in zip(names, masks, labels, strict=True) if label == 1 and mask is None]
    if missing:
        raise ValueError(
            f"{len(missing)} anomalous images have no mask, e.g. {missing[0]}; "
            "normal ones belong in a folder 'good' or get label 0"
        )


def _key(name: str, *, is_mask: bool = True) -> str:
    stem = Path(name).with_suffix("").as_posix()
    return stem.removesuffix("_mask") if is_mask else stem
