"""What the demo looks at: crops of one photograph, crops of others, and scenes with a foreign object."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dracones.images import Scenes, blob_cutouts, builtin_photograph, coin_cutouts, compose_scenes, crops

SURFACE = "gravel"
OTHERS = ("brick", "grass", "moon", "coins", "camera", "page", "chelsea", "retina")
SIDE = 32

_CELL = 64  # crops of different cells share no pixel
_SCENE_ROWS = 128  # the strip at the bottom that scenes are cut from, and no crop
_TRAINING_CELLS = 24


@dataclass(frozen=True)
class DemoImages:
    """All images of the demo, ``[N, 1, H, W]`` in [0, 1].

    Attributes:
        train: crops of half of the surface's cells.
        calibration: crops of the other cells, drawn at random from one pool with ``test``: exchangeable with them.
        test: the rest of that pool.
        others: crops of other photographs, and of two simple sets, by name.
        scenes: held-out surface with a foreign object, and its mask.
    """

    train: Tensor
    calibration: Tensor
    test: Tensor
    others: dict[str, Tensor]
    scenes: Scenes


def demo_images(seed: int = 0, *, train: int = 2400, calibration: int = 1200, test: int = 1200) -> DemoImages:
    """Cut the photographs; the same seed gives the same images.

    >>> images = demo_images(train=48, calibration=24, test=24)
    >>> images.train.shape, sorted(images.others)[:2], images.scenes.masks.shape
    (torch.Size([48, 1, 32, 32]), ['brick', 'camera'], torch.Size([8, 128, 128]))
    """
    surface = builtin_photograph(SURFACE, channels=1)
    generator = torch.Generator().manual_seed(seed)
    cells = _cells(surface[:, :-_SCENE_ROWS])
    order = torch.randperm(len(cells), generator=generator).tolist()
    learnt = [cells[i] for i in order[:_TRAINING_CELLS]]
    held_out = [cells[i] for i in order[_TRAINING_CELLS:]]
    pool = _crops_of(held_out, calibration + test, generator)
    pool = pool[torch.randperm(len(pool), generator=generator)]
    objects = coin_cutouts() + blob_cutouts(builtin_photograph("coffee", channels=1), 8, 64, seed=seed)
    return DemoImages(
        train=_crops_of(learnt, train, generator),
        calibration=pool[:calibration],
        test=pool[calibration:],
        others=_others(generator),
        scenes=compose_scenes(surface[:, -_SCENE_ROWS:], objects, 128, 8, seed=seed, share=1.0, extent=(0.25, 0.45)),
    )


def _cells(surface: Tensor) -> list[Tensor]:
    _, height, width = surface.shape
    return [
        surface[:, top : top + _CELL, left : left + _CELL]
        for top in range(0, height - _CELL + 1, _CELL)
        for left in range(0, width - _CELL + 1, _CELL)
    ]


def _crops_of(cells: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
    each = -(-count // len(cells))
    drawn = torch.cat([crops(cell, SIDE, each, generator) for cell in cells])
    return drawn[torch.randperm(len(drawn), generator=generator)[:count]]


def _others(generator: torch.Generator, count: int = 400) -> dict[str, Tensor]:
    others = {name: crops(builtin_photograph(name, channels=1), SIDE, count, generator) for name in OTHERS}
    levels = torch.randint(0, 256, (count, 1, SIDE, SIDE), generator=generator)
    others["uniform noise"] = levels / 255
    others["flat gray"] = levels[:, :, :1, :1].expand(-1, -1, SIDE, SIDE).contiguous() / 255
    return others
