"""Resizing as two matrix products: the same numbers in every runtime, for any height and width.

Runtimes disagree on antialiased resizing (some leave the antialiasing out), and none of them on a matrix product. The
matrices follow from the sizes alone, which may be free in an exported graph.

Images of 256 levels are resized in whole numbers: weights of 15 and 12 bits, eleven bits between the two products. No
sum then leaves the 24 bits that float32 holds exactly, so it comes out the same in whatever order a runtime adds,
and rounding to levels never falls to one side here and to the other there.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Fit = Literal["stretch", "cover", "contain"]
Size = tuple[int, int]

_FIRST_BITS, _SECOND_BITS, _BETWEEN_BITS = 15, 12, 3
_TOUCHES = 1 - 1e-6


class Side(NamedTuple):
    """How one side of an image meets the side of the canvas that it is resized to; numbers as float64 scalars."""

    native: Tensor
    """Pixels of the image."""
    inner: Tensor
    """Pixels of the image once it is resized."""
    offset: Tensor
    """Where the canvas begins in the resized image; negative: the image begins inside the canvas."""


def sides(native: Size, size: Size | None, fit: Fit) -> tuple[Side, Side]:
    """Rows and columns of an image of size `native` on a canvas of `size` (`None`: its own)."""
    extents = [_scalar(side) for side in native]
    zero = torch.zeros((), dtype=torch.float64)
    if size is None:
        return Side(extents[0], extents[0], zero), Side(extents[1], extents[1], zero)
    wanted = [_scalar(side) for side in size]
    if fit == "stretch":
        return Side(extents[0], wanted[0], zero), Side(extents[1], wanted[1], zero)
    down, across = (want / have for want, have in zip(wanted, extents, strict=True))
    ratio = torch.maximum(down, across) if fit == "cover" else torch.minimum(down, across)
    inner = [(have * ratio).round().clamp_min(1) for have in extents]
    first, second = (
        Side(have, within, ((within - want) / 2).floor())
        for have, within, want in zip(extents, inner, wanted, strict=True)
    )
    return first, second


def resize(images: Tensor, size: Size, *, fit: Fit = "stretch", interpolation: Interpolation = "bilinear") -> Tensor:
    """Images `[B, C, H, W]` on a canvas of `size`; antialiased where they shrink.

    Like torch's antialiased ``interpolate``, to rounding; ``nearest`` is its ``nearest-exact``. What a contained image
    leaves free repeats its edge. Bicubic values may overshoot.

    Example:
        >>> resize(torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]]), (1, 2))
        tensor([[[[0.7143, 2.2857]]]])
    """
    if _is(images, size):
        return images
    rows, columns = _weights((images.shape[-2], images.shape[-1]), size, fit, interpolation, None)
    return rows.to(images) @ (images @ columns.to(images).T)


def resize_levels(
    levels: Tensor, size: Size, *, fit: Fit = "stretch", interpolation: Interpolation = "bilinear"
) -> Tensor:
    """As `resize`, for whole numbers from 0 to 255, which whole numbers become.

    Example:
        >>> resize_levels(torch.tensor([[[[0.0, 100.0, 200.0, 255.0]]]]), (1, 2))
        tensor([[[[ 71., 209.]]]])
    """
    if _is(levels, size):
        return levels
    native = (levels.shape[-2], levels.shape[-1])
    rows, columns = _weights(native, size, fit, interpolation, (_SECOND_BITS, _FIRST_BITS))
    across = levels @ columns.to(levels).T
    between = (across * 2.0 ** (_BETWEEN_BITS - _FIRST_BITS)).round()
    down = rows.to(levels) @ between
    return (down * 2.0 ** -(_BETWEEN_BITS + _SECOND_BITS)).round().clamp(0, 255)


def enlarge(maps: Tensor, native: Size, size: Size | None, *, fit: Fit = "stretch", crop: Size | None = None) -> Tensor:
    """Maps `[B, h, w]` of resized images, laid back over images of size `native`, bilinear.

    Args:
        maps: of what `resize` (and then a centre `crop`) made of the images.
        native: the images' own height and width.
        size: of the canvas.
        fit: how the images met it.
        crop: what was cut from the canvas; what lies outside of it is NaN.

    Example:
        >>> enlarge(torch.tensor([[[0.0, 1.0]]]), (1, 4), (1, 2))
        tensor([[[0.0000, 0.2500, 0.7500, 1.0000]]])
    """
    if fit == "stretch" and crop is None and _is(maps, native):
        return maps
    rows, columns = (
        _back(side, have, inside, canvas, cut)
        for side, have, inside, canvas, cut in zip(
            sides(native, size, fit), native, maps.shape[1:], size or native, crop or (None, None), strict=True
        )
    )
    heat = rows.to(maps) @ (maps @ columns.T.to(maps))
    if fit == "stretch" and crop is None:
        return heat
    seen = (rows.sum(dim=1) > _TOUCHES)[:, None] & (columns.sum(dim=1) > _TOUCHES)[None]
    return torch.where(seen.to(maps.device), heat, torch.full_like(heat, torch.nan))


def _weights(
    native: Size, size: Size, fit: Fit, interpolation: Interpolation, bits: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    """The matrices `[size, H]` and `[size, W]`: rows that sum to one, or to `2**bits` in whole numbers."""
    if torch.compiler.is_exporting():  # what is made while tracing belongs to the trace
        return _made(native, size, fit, interpolation, bits)
    return _kept(native, size, fit, interpolation, bits)


@lru_cache(maxsize=64)
def _kept(*arguments: Any) -> tuple[Tensor, Tensor]:
    # Numbers, whoever asks first: within `shapes_alone` the device would be meta.
    with torch.inference_mode(mode=False), torch.device("cpu"):
        return _made(*arguments)


def _made(
    native: Size, size: Size, fit: Fit, interpolation: Interpolation, bits: tuple[int, int] | None
) -> tuple[Tensor, Tensor]:
    both = sides(native, size, fit)
    rows, columns = (
        _matrix(side, have, count, interpolation) for side, have, count in zip(both, native, size, strict=True)
    )
    if bits is not None:
        rows, columns = _whole(rows, bits[0]), _whole(columns, bits[1])
    return rows.float(), columns.float()


def _matrix(side: Side, native: int, count: int, interpolation: Interpolation) -> Tensor:
    place = torch.arange(count, dtype=torch.float64) + side.offset
    # Beyond the image its edge is repeated.
    place = torch.minimum(place.clamp_min(0), side.inner - 1)
    source = torch.arange(native, dtype=torch.float64)
    scale = side.native / side.inner
    if interpolation == "nearest":
        nearest = torch.minimum(((2 * place + 1) * side.native / (2 * side.inner)).floor(), side.native - 1)
        return (source[None] == nearest[:, None]).double()
    centre = (place + 0.5) * scale
    distance = (source[None] + 0.5 - centre[:, None]).abs() / scale.clamp_min(1)
    weights = _KERNELS[interpolation](distance)
    return weights / weights.sum(dim=1, keepdim=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp_min(0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as in Pillow and torch's antialiased resizing."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _triangle, "bicubic": _cubic}


def _whole(weights: Tensor, bits: int) -> Tensor:
    """Weights in whole `2**-bits`, as many as they were: what one is short of goes to its neighbour."""
    edges: Tensor = (functional.pad(weights, (1, 0)).cumsum(dim=1) * 2.0**bits).round()
    return edges[:, 1:] - edges[:, :-1]


def _back(side: Side, native: int, inside: int, canvas: int, crop: int | None) -> Tensor:
    """Weights `[native, inside]` of a map's cells for the pixels of the image; rows sum to one where all is known."""
    pixel = torch.arange(native, dtype=torch.float64)
    place = ((pixel + 0.5) * (side.inner / side.native) - 0.5).clamp_min(0)
    place = torch.minimum(place, side.inner - 1)
    first = side.offset + (0 if crop is None else _scalar((canvas - crop) // 2))
    cell = torch.arange(inside, dtype=torch.float64) + first
    return _triangle((place[:, None] - cell[None]).abs())


def _scalar(side: int) -> Tensor:
    """A side's length as a tensor; it may be a free one of an exported graph."""
    return torch.scalar_tensor(side, dtype=torch.float64)


def _is(images: Tensor, size: Size) -> bool:
    """Whether nothing has to be done; never where a side is free, since there the matrices say so themselves."""
    have = (images.shape[-2], images.shape[-1])
    return all(type(side) is int for side in (*have, *size)) and have == tuple(size)
