"""The folder layout of MVTec-AD and of the many inspection sets that copied it.

    bottle/train/good/000.png
    bottle/test/good/000.png   bottle/test/broken_small/000.png
    bottle/ground_truth/broken_small/000_mask.png

MVTec LOCO has `validation/good` too and several masks an image (`formats/loco.py`); BTAD says ok and ko.

Reference: P. Bergmann et al., "MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", 2019.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dracones.images.folder import find_images, natural_key
from dracones.images.formats.loco import CONFIG, LocoFiles, read_saturations
from dracones.images.limits import Limits, Skipped, UnreadableImage
from dracones.images.masks import MaskedFiles, MaskPaths, masks_beside
from dracones.images.sources import ImageSource

if TYPE_CHECKING:
    from dracones.images.collection import ImageCollection
    from dracones.images.preprocess import Preprocess

_GOODS = ("good", "ok")
"""What sets call the folder of normal images: BTAD says ok."""
_GOOD_ALONE = [[name] for name in _GOODS]
_NORMAL_SPLITS = ("train", "validation")


class MvtecLayout:
    """One category: its normal training images, its test images with labels and masks, the names of its defects.

    Args:
        root: The category's folder.
        preprocess: What is done to every image and mask.
        strict: Raise at the first file that cannot be read.
        limits: What one image may cost.

    Raises:
        ValueError: the folder is not laid out so; where it holds categories, they are named.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        preprocess: "Preprocess | None" = None,
        strict: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.root = Path(root)
        self.preprocess, self.strict, self.limits = preprocess, strict, limits or Limits()
        if not is_mvtec(self.root):
            raise ValueError(self._not_laid_out())

    @property
    def train(self) -> "ImageCollection":
        """The normal images to learn from (`train/good`)."""
        return self.open("train")

    @property
    def test(self) -> "ImageCollection":
        """All test images: `labels` 1 = anomalous, `mask(i)` at each."""
        return self.open("test")

    @property
    def defects(self) -> tuple[str, ...]:
        """Names of the kinds of defect, the folders of `test` besides `good`."""
        return tuple(name for name in _folders(self.root / "test") if name not in _GOODS)

    @property
    def parts(self) -> tuple[str, ...]:
        """What `open` takes: `train`, `test`, each folder of `test`, and `validation` where there is one."""
        return mvtec_parts(self.root)

    def open(self, part: str) -> "ImageCollection":
        """The images of one part, e.g. `test/scratch`.

        Raises:
            ValueError: there is no such part.
        """
        source, skipped = self.source(part)
        from dracones.images.collection import ImageCollection  # which loads torch

        return ImageCollection(source, preprocess=self.preprocess, strict=self.strict, skipped=skipped)

    def source(self, part: str) -> tuple[ImageSource, list[Skipped]]:
        """Where the images of one part are, with labels and masks, and what was passed over; it loads no torch.

        Raises:
            ValueError: there is no such part.
        """
        source, skipped = mvtec_source(self.root, part, self.limits)
        unread = next((item for item in skipped if item.is_image), None)
        if self.strict and unread is not None:
            raise UnreadableImage(unread.name, unread.reason)
        return source, skipped

    def _not_laid_out(self) -> str:
        if not self.root.is_dir():
            return f"no such folder: {self.root}"
        categories = [name for name in _folders(self.root) if is_mvtec(self.root / name)]
        if categories:
            return f"{self.root} holds categories; name one: {', '.join(categories)}"
        return (
            f"{self.root} is not laid out like MVTec-AD: expected train/good and test; it holds "
            f"{', '.join(_folders(self.root)) or 'no folders'}"
        )


def is_mvtec(folder: Path) -> bool:
    """Whether the folder is a category: it has `test`, and `train` with `good` and no other folder.

    A classification set with a class called "good" beside others is not one: its other classes are no training images.
    """
    return (folder / "test").is_dir() and _folders(folder / "train") in _GOOD_ALONE


def mvtec_parts(root: Path) -> tuple[str, ...]:
    """The parts of a category: `train`, maybe `validation`, `test`, and each folder of `test`."""
    held_out = ("validation",) if _folders(root / "validation") in _GOOD_ALONE else ()
    return ("train", *held_out, "test", *(f"test/{name}" for name in _folders(root / "test")))


def mvtec_place(folder: Path) -> tuple[Path, str] | None:
    """(category, part) where `folder` is `test`, `train` or a folder in one of them; else None."""
    resolved = folder.resolve()
    for root, part in (
        (resolved.parent, resolved.name),
        (resolved.parent.parent, f"{resolved.parent.name}/{resolved.name}"),
    ):
        if part.split("/")[0] in (*_NORMAL_SPLITS, "test") and is_mvtec(root):
            return root, part
    return None


def mvtec_source(root: Path, part: str, limits: Limits) -> tuple[ImageSource, list[Skipped]]:
    """The images of one part, with labels and masks."""
    folder = root / part
    known = mvtec_parts(root)
    if part not in (*known, *(f"{split}/{good}" for split in _NORMAL_SPLITS for good in _GOODS)):
        raise ValueError(f"{root} has no part '{part}'; name one: {', '.join(f'{root}:{name}' for name in known)}")
    split, _, kind = part.partition("/")
    images, skipped = find_images(folder)
    if not images:
        raise ValueError(f"no images in {folder}")
    names = [path.relative_to(folder).as_posix() for path in images]
    kinds = [kind or name.split("/")[0] for name in names]
    labels = np.array([int(split == "test" and k not in _GOODS) for k in kinds], dtype=np.int64)
    masks: list[MaskPaths] = [None] * len(images)
    truth = root / "ground_truth" / kind
    if split == "test" and labels.any() and truth.is_dir():
        masks = masks_beside(names, truth)
    name, config = f"{root.name}:{part}", root / CONFIG
    if split == "test" and config.is_file():
        loco = LocoFiles(images, folder, name, limits, masks, labels)
        loco.saturations = read_saturations(config)
        source: MaskedFiles = loco
    else:
        source = MaskedFiles(images, folder, name, limits, masks, labels)
    source.has_masks = split == "test" and (truth.is_dir() or not labels.any())
    return source, skipped


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    names = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=lambda name: (name not in _GOODS, natural_key(name)))
