"""Masks as data: boolean tensors, True where a coupling reads (and leaves alone), False where it changes.

A mask of shape `[C, H, W]` is spatial; one of shape `[C]` is over channels (or the entries of a vector). Any other
boolean tensor of these shapes does as well: a coupling asks only that no position is both read and changed.
"""

import torch
from torch import Tensor

Shape = tuple[int, int, int]


def checkerboard(shape: Shape, *, reverse: bool = False) -> Tensor:
    """Alternate positions; the top-left one is changed, and read if reversed (Dinh et al. 2017, figure 3).

    >>> checkerboard((1, 2, 4)).int()
    tensor([[[0, 1, 0, 1],
             [1, 0, 1, 0]]], dtype=torch.int32)
    """
    channels, height, width = shape
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 1
    return (board ^ reverse).expand(channels, height, width).clone()


def channels(count: int, *, reverse: bool = False) -> Tensor:
    """The first half of the channels is read, the second changed; the other way round if reversed.

    >>> channels(5)
    tensor([ True,  True, False, False, False])
    """
    return (torch.arange(count) < count // 2) ^ reverse


def halves(shape: Shape, *, reverse: bool = False) -> Tensor:
    """The top half is read, the bottom half changed: Kirichenko et al. 2020's horizontal mask.

    >>> halves((1, 2, 3)).int()
    tensor([[[1, 1, 1],
             [0, 0, 0]]], dtype=torch.int32)
    """
    channels_, height, width = shape
    top = (torch.arange(height) < height // 2)[:, None].expand(height, width)
    return (top ^ reverse).expand(channels_, height, width).clone()


def cycle(shape: Shape, step: int) -> tuple[Tensor, Tensor]:
    """(reads, changes) of the cycle mask: quadrant `step` is read, the next one clockwise changed.

    Quadrants are 0 top-left, 1 top-right, 2 bottom-right, 3 bottom-left; the other two pass through, so a pixel's
    information needs four couplings to come back to its own quadrant (Kirichenko et al. 2020, section 6).

    >>> reads, changes = cycle((1, 2, 2), step=0)
    >>> reads.int().tolist(), changes.int().tolist()
    ([[[1, 0], [0, 0]]], [[[0, 1], [0, 0]]])
    """
    return _quadrant(shape, step), _quadrant(shape, step + 1)


def _quadrant(shape: Shape, index: int) -> Tensor:
    channels_, height, width = shape
    top = (torch.arange(height) < height // 2)[:, None]
    left = torch.arange(width) < width // 2
    quadrants = (top & left, top & ~left, ~top & ~left, ~top & left)
    return quadrants[index % 4].expand(channels_, height, width).clone()
