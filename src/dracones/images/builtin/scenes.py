"""Composed scenes: a foreign object, real pixels, laid on a photographed surface, with its exact mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from dracones.images.builtin.photographs import builtin_photograph, crops
from dracones.images.preprocess import Preprocess
from dracones.images.sources import ArraySource

# The rim of a pasted object fades over about this many pixels, as a lens would show it.
_RIM = 1.0


@dataclass(frozen=True)
class Cutout:
    """An object: `pixels` `[C, h, w]` in [0, 1], and how much of it covers each pixel, `alpha` `[h, w]` in [0, 1]."""

    pixels: Tensor
    alpha: Tensor


class Scenes(NamedTuple):
    """Composed images `[N, C, H, W]` of 256 levels, `masks` `[N, H, W]` bool, `labels` `[N]` (1: holds an object)."""

    images: Tensor
    masks: Tensor
    labels: Tensor


def compose_scenes(
    surface: Tensor,
    objects: Sequence[Cutout],
    size: int | tuple[int, int],
    count: int,
    seed: int = 0,
    *,
    share: float = 0.5,
    extent: tuple[float, float] = (0.2, 0.4),
) -> Scenes:
    """`count` crops of `surface` `[C, H, W]`, the first `share` of them with one object each.

    The object is turned by quarters and mirrored, scaled so that its longer side is `extent` of the scene's shorter,
    and put anywhere inside. The mask holds every pixel of which at least half comes from the object.

    Raises:
        ValueError: no object, a share outside [0, 1], an extent outside (0, 1].

    Example:
        >>> scenes = compose_scenes(builtin_photograph("gravel"), coin_cutouts(), 64, 10, seed=1)
        >>> scenes.images.shape, int(scenes.labels.sum()), bool(scenes.masks[0].any()), bool(scenes.masks[9].any())
        (torch.Size([10, 1, 64, 64]), 5, True, False)
    """
    if not objects or not 0 <= share <= 1 or not 0 < extent[0] <= extent[1] <= 1:
        raise ValueError(f"{len(objects)} objects, share={share}, extent={extent}: at least 1, in [0, 1], in (0, 1]")
    generator = torch.Generator().manual_seed(seed)
    images = crops(surface, size, count, generator)
    height, width = images.shape[2:]
    masks = torch.zeros((count, height, width), dtype=torch.bool)
    labels = (torch.arange(count) < round(count * share)).long()
    for index in range(int(labels.sum())):
        pixels, alpha = _posed(objects[_draw(len(objects), generator)], min(height, width), extent, generator)
        pixels = Preprocess(channels=images.shape[1])(pixels)
        top = _draw(height - alpha.shape[0] + 1, generator)
        left = _draw(width - alpha.shape[1] + 1, generator)
        window = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
        below = images[index][:, *window]
        images[index][:, *window] = below + alpha * (pixels - below)
        masks[index][window] = alpha >= 0.5
    return Scenes(images.mul(255).round_().div_(255), masks, labels)


def coin_cutouts() -> list[Cutout]:
    """The 24 coins of scikit-image's photograph `coins`, each cut out along its own outline.

    Outlines come from a watershed on the gradient, seeded by what is surely background and surely coin, as in
    scikit-image's own example of this photograph.

    Example:
        >>> len(coin_cutouts())
        24
    """
    from scipy import ndimage
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    photo = builtin_photograph("coins")[0].numpy()
    seeds = np.where(photo < 30 / 255, 1, np.where(photo > 150 / 255, 2, 0))
    coins = watershed(sobel(photo), seeds) == 2
    coins = ndimage.binary_opening(ndimage.binary_fill_holes(coins), iterations=3)
    labelled, _ = ndimage.label(coins)
    cutouts = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), 1):
        # One pixel less than the outline, so that no dark rim of the old background comes along.
        inside = ndimage.binary_erosion(np.pad(labelled[rows, columns] == number, 3))
        alpha = np.clip(ndimage.gaussian_filter(inside.astype(np.float32), _RIM / 2), 0, 1)
        pixels = np.pad(photo, 3, mode="edge")[rows.start : rows.stop + 6, columns.start : columns.stop + 6]
        cutouts.append(Cutout(torch.from_numpy(pixels.copy())[None], torch.from_numpy(alpha)))
    return cutouts


def blob_cutouts(photo: Tensor, count: int, size: int, seed: int = 0) -> list[Cutout]:
    """`count` smooth round pieces of a photograph `[C, H, W]`, within `size` x `size` pixels, each of its own outline.

    The outline is a circle whose radius waves with the angle (harmonics 2 to 5, of random phase).

    Example:
        >>> pieces = blob_cutouts(builtin_photograph("brick"), 3, 40, seed=1)
        >>> [tuple(piece.alpha.shape) for piece in pieces]
        [(40, 40), (40, 40), (40, 40)]
    """
    generator = torch.Generator().manual_seed(seed)
    pieces = crops(photo, size, count, generator)
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance, angle = torch.hypot(y, x), torch.atan2(y, x)
    cutouts = []
    for pixels in pieces:
        waves = torch.zeros_like(distance)
        for harmonic in range(2, 6):
            height, phase = torch.rand(2, generator=generator).tolist()
            waves += height / harmonic * torch.cos(harmonic * angle + 2 * math.pi * phase)
        radius = 1 + 0.35 * waves
        radius = radius * ((size / 2 - 2 * _RIM) / float(radius.max()))
        cutouts.append(Cutout(pixels, torch.sigmoid(4 * (radius - distance) / _RIM)))
    return cutouts


class ScenesSource(ArraySource):
    """Composed scenes as a source of images with labels and masks."""

    has_masks = True

    def __init__(self, scenes: Scenes, name: str = "scenes") -> None:
        images = scenes.images.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        super().__init__(images, name, scenes.labels.numpy(), ("normal", "anomalous"))
        self.masks = scenes.masks.numpy()

    @override
    def mask(self, index: int) -> np.ndarray:
        mask: np.ndarray = self.masks[index]
        return mask


def _posed(cutout: Cutout, side: int, extent: tuple[float, float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The object mirrored, turned and scaled to its share of the scene's side."""
    both = torch.cat([cutout.pixels, cutout.alpha[None]])
    both = both.flip(2) if _draw(2, generator) else both
    both = torch.rot90(both, _draw(4, generator), (1, 2))
    share = extent[0] + (extent[1] - extent[0]) * float(torch.rand((), generator=generator))
    ratio = share * side / max(both.shape[1:])
    target = tuple(max(1, round(length * ratio)) for length in both.shape[1:])
    both = functional.interpolate(both[None], target, mode="bilinear", antialias=True, align_corners=False)[0]
    return both[:-1].clamp(0, 1), both[-1].clamp(0, 1)


def _draw(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))
