"""Kolektor's two sets: an image and its mask side by side.

    KolektorSDD/kos01/Part0.jpg       KolektorSDD/kos01/Part0_label.bmp
    KolektorSDD2/train/10000.png      KolektorSDD2/train/10000_GT.png

Whether an image is defective is what its mask says: marked anywhere. KolektorSDD2's `train` has defective images too,
which nothing here learns from. KolektorSDD has no split for learning from good images alone: here its odd items
(kos01, kos03, ...) train, with their good images, and `test` is all the rest. So no item has good images on both
sides.

References: D. Tabernik et al., "Segmentation-Based Deep-Learning Approach for Surface-Defect Detection", 2019;
J. Božič et al., "Mixed supervision for surface-defect detection: from weakly to fully supervised learning", 2021.
"""

import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dracones.images.folder import find_images
from dracones.images.limits import Limits, Skipped
from dracones.images.masks import MaskedFiles, read_mask
from dracones.images.sources import ImageSource

_GOOD, _DEFECTIVE = "good", "defective"
_ITEM = re.compile(r"kos(\d+)", re.IGNORECASE)
_LOOKED_AT = 1000


class _Pair(NamedTuple):
    image: Path
    mask: Path
    split: str


def is_kolektor(folder: Path) -> bool:
    """Whether the folder is KolektorSDD or KolektorSDD2."""
    return _is_second(folder) or _is_first(folder)


def kolektor_parts(folder: Path) -> tuple[str, ...]:
    """The good images to learn from, and the test images, all or by what they are."""
    unlearnt = (f"train/{_DEFECTIVE}",) if _is_second(folder) else ()
    return ("train", *unlearnt, "test", f"test/{_GOOD}", f"test/{_DEFECTIVE}")


def kolektor_source(folder: Path, part: str, limits: Limits) -> tuple[ImageSource, list[Skipped]]:
    """The images of one part, with labels and masks; every mask of the split is read once.

    Raises:
        ValueError: no such part, an image without its mask, a mask that cannot be read.
    """
    known = kolektor_parts(folder)
    if part not in (*known, f"train/{_GOOD}"):
        raise ValueError(f"{folder} has no part '{part}'; name one: {', '.join(f'{folder}:{name}' for name in known)}")
    split, _, kind = part.partition("/")
    pairs, skipped = (_second if _is_second(folder) else _first)(folder)
    marked = [(pair, bool(read_mask(pair.mask, limits).any())) for pair in pairs if pair.split in ("", split)]
    kind = kind or (_GOOD if split == "train" else "")
    if not _is_second(folder):
        marked = [(pair, odd) for pair, odd in marked if _belongs(pair, odd, split)]
    chosen = [(pair, odd) for pair, odd in marked if not kind or odd == (kind == _DEFECTIVE)]
    if not chosen:
        raise ValueError(f"no images in {folder}:{part}")
    source = MaskedFiles(
        [pair.image for pair, _ in chosen],
        folder,
        f"{folder.name}:{part}",
        limits,
        [pair.mask if odd else None for pair, odd in chosen],
        np.array([int(odd) for _, odd in chosen], dtype=np.int64),
    )
    source.groups = [_DEFECTIVE if odd else _GOOD for _, odd in chosen]
    return source, skipped


def _belongs(pair: _Pair, odd: bool, split: str) -> bool:
    """KolektorSDD: good images by the number of their item; all defective ones are test images."""
    number = _ITEM.match(pair.image.parent.name)
    trains = number is not None and int(number.group(1)) % 2 == 1 and not odd
    return trains == (split == "train")


def _is_second(folder: Path) -> bool:
    splits = [folder / "train", folder / "test"]
    return all(split.is_dir() for split in splits) and any(
        path.stem.endswith("_GT") for path in islice(splits[0].iterdir(), _LOOKED_AT)
    )


def _is_first(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    items = [path for path in islice(folder.iterdir(), _LOOKED_AT) if _ITEM.fullmatch(path.name) and path.is_dir()]
    return bool(items) and any(path.stem.endswith("_label") for path in islice(items[0].iterdir(), _LOOKED_AT))


def _second(folder: Path) -> tuple[list[_Pair], list[Skipped]]:
    return _paired([(folder / split, split) for split in ("train", "test")], "_GT")


def _first(folder: Path) -> tuple[list[_Pair], list[Skipped]]:
    return _paired([(folder, "")], "_label")


def _paired(folders: list[tuple[Path, str]], ending: str) -> tuple[list[_Pair], list[Skipped]]:
    pairs: list[_Pair] = []
    skipped: list[Skipped] = []
    for folder, split in folders:
        files, others = find_images(folder)
        skipped += others
        masks = {path.with_name(path.stem.removesuffix(ending)): path for path in files if path.stem.endswith(ending)}
        images = [path for path in files if not path.stem.endswith(ending)]
        lacking = [path for path in images if path.with_suffix("") not in masks]
        if lacking:
            raise ValueError(
                f"{len(lacking)} of {len(images)} images in {folder} have no mask, e.g. {lacking[0].name} no "
                f"{lacking[0].stem}{ending}.*; in Kolektor's sets a mask says whether an image is good"
            )
        pairs += [_Pair(path, masks[path.with_suffix("")], split) for path in images]
    return pairs, skipped
