"""Defects made on good images: patches, scars, foreign texture, blur, missing parts; graded in size and contrast."""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

DefectKind = Literal["patch", "scar", "texture", "blur", "missing"]
DEFECT_KINDS: tuple[DefectKind, ...] = get_args(DefectKind)

_PLACES = 16
_LEAST_CHANGE = 2 / 255
"""Mean change of the marked pixels at full contrast under which a place shows nothing, and another is tried."""


class Defect(NamedTuple):
    """A good image `[C, H, W]` with a made defect, and where it is, `[H, W]` bool."""

    image: Tensor
    mask: Tensor


def with_defect(
    image: Tensor,
    kind: DefectKind,
    *,
    size: float,
    contrast: float = 1.0,
    donor: Tensor | None = None,
    inside: Tensor | None = None,
    generator: torch.Generator,
) -> Defect:
    """A copy of a good image with one made defect at a random place where the image has structure.

    - ``patch``: a piece of the donor, turned, as in CutPaste (Li et al. 2021);
    - ``scar``: a thin line, darker or brighter;
    - ``texture``: the donor's texture under a Perlin mask, as in DRAEM (Zavrtanik et al. 2021);
    - ``blur``: sharpness lost in a spot;
    - ``missing``: a spot filled with the colour around it.

    These are stand-ins: no real defect is among them, and what is found of them says which sizes and contrasts can be
    seen at all, not which real defects will be.

    Args:
        image: `[C, H, W]` in [0, 1].
        kind: which.
        size: extent of the defect, as a share of the image's shorter side, in (0, 1]; a scar is twice as long.
        contrast: share of the change that is applied, in (0, 1].
        donor: another good image of the same channels, any size; the image itself if not given.
        inside: `[H, W]` bool, where the image counts: the defect's centre lies there, and nothing else is changed.
        generator: draws place, shape and content.

    Raises:
        ValueError: unknown kind, a size or contrast outside (0, 1], or nothing inside.

    Example:
        >>> stripes = torch.linspace(0, 1, 32).repeat(3, 32, 1)
        >>> made = with_defect(stripes, "scar", size=0.25, generator=torch.Generator().manual_seed(0))
        >>> bool(made.mask.any()), bool((made.image != stripes).any(dim=0)[~made.mask].any())
        (True, False)
    """
    if kind not in DEFECT_KINDS:
        raise ValueError(f"unknown kind of defect {kind!r}; there are {', '.join(DEFECT_KINDS)}")
    for name, value in (("size", size), ("contrast", contrast)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}: expected a share in (0, 1], got {value}")
    if inside is not None and not inside.any():
        raise ValueError("inside: no pixel is marked, so there is no place for a defect")
    extent = max(2, round(size * min(image.shape[1:])))
    donor = image if donor is None else donor
    best: tuple[float, Tensor, Tensor] | None = None
    for centre in _inside(_places(image, generator), inside, generator):
        mask = _shape(kind, (image.shape[1], image.shape[2]), centre, extent, inside, generator)
        content = _content(kind, image, mask, centre, extent, donor, generator)
        change = float((content - image).abs().mean(dim=0)[mask].mean()) if mask.any() else 0.0
        if best is None or change > best[0]:
            best = (change, mask, content)
        if change >= _LEAST_CHANGE:
            break
    if best is None:
        raise ValueError(f"image of {list(image.shape)} has no place for a defect")
    _, mask, content = best
    return Defect(torch.where(mask, torch.lerp(image, content, contrast), image).clamp(0, 1), mask)


def _places(image: Tensor, generator: torch.Generator) -> list[tuple[int, int]]:
    """Centres, likelier where the image has structure: on the part, rather than on the plain ground around it."""
    gray = image.mean(dim=0)[None, None]
    smooth = F.avg_pool2d(F.pad(gray, [2] * 4, mode="replicate"), 5, stride=1)
    coarse = F.adaptive_avg_pool2d((gray - smooth).abs(), (16, 16)).flatten()
    weights = coarse + 0.05 * coarse.mean() + 1e-6
    cells = torch.multinomial(weights, _PLACES, replacement=True, generator=generator)
    within = torch.rand(_PLACES, 2, generator=generator)
    height, width = image.shape[1], image.shape[2]
    return [
        (int((cell // 16 + y) * height / 16), int((cell % 16 + x) * width / 16))
        for cell, (y, x) in zip(cells.tolist(), within.tolist(), strict=True)
    ]


def _inside(places: list[tuple[int, int]], inside: Tensor | None, generator: torch.Generator) -> list[tuple[int, int]]:
    """The places that lie inside; where none does, one of all that do."""
    if inside is None:
        return places
    found = [(y, x) for y, x in places if inside[y, x]]
    pixels = inside.nonzero()
    drawn = pixels[torch.randint(len(pixels), (1,), generator=generator)][0].tolist()
    return found or [(drawn[0], drawn[1])]


def _shape(
    kind: DefectKind,
    size: tuple[int, int],
    centre: tuple[int, int],
    extent: int,
    inside: Tensor | None,
    generator: torch.Generator,
) -> Tensor:
    """The marked pixels `[H, W]`, of those inside; never none where the centre lies inside."""
    angle = math.pi * float(torch.rand((), generator=generator))
    y = torch.arange(size[0])[:, None] - centre[0]
    x = torch.arange(size[1])[None, :] - centre[1]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    half = extent / 2
    seen = torch.ones(size, dtype=torch.bool) if inside is None else inside
    if kind == "scar":
        return (along.abs() <= extent) & (across.abs() <= max(0.5, extent / 16)) & seen
    aspect = 0.5 + float(torch.rand((), generator=generator))
    if kind == "patch":
        return (along.abs() <= half) & (across.abs() <= half * aspect) & seen
    ellipse = ((along / half).square() + (across / (half * aspect)).square() <= 1) & seen
    if kind == "texture":
        rough = ellipse & (_perlin(size, max(2, extent // 2), generator) > 0)
        return rough if rough.any() else ellipse
    return ellipse


def _perlin(size: tuple[int, int], cell: int, generator: torch.Generator) -> Tensor:
    """Smooth noise `[H, W]` about zero, of a given grain."""
    coarse = torch.randn(1, 1, size[0] // cell + 2, size[1] // cell + 2, generator=generator)
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0, 0]


def _content(
    kind: DefectKind,
    image: Tensor,
    mask: Tensor,
    centre: tuple[int, int],
    extent: int,
    donor: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """What stands at the marked pixels at full contrast, `[C, H, W]`."""
    if kind in ("patch", "texture"):
        return _pasted(image, centre, donor, generator)
    if kind == "scar":
        level = image[:, mask].mean()
        return torch.zeros_like(image) if level > 0.5 else torch.ones_like(image)
    if kind == "blur":
        width = 2 * max(1, extent // 4) + 1
        kernel = min(width, 2 * ((min(image.shape[1:]) - 1) // 2) + 1)
        padded = F.pad(image[None], [kernel // 2] * 4, mode="replicate")
        return F.avg_pool2d(padded, kernel, stride=1)[0]
    ring = F.max_pool2d(mask[None, None].float(), 5, stride=1, padding=2)[0, 0].bool() & ~mask
    around = image[:, ring if ring.any() else mask].mean(dim=1)
    return around[:, None, None].expand_as(image)


def _pasted(image: Tensor, centre: tuple[int, int], donor: Tensor, generator: torch.Generator) -> Tensor:
    """The donor, turned by quarters, with another place of its own at the centre; repeated where it ends."""
    turns = int(torch.randint(4, (), generator=generator))
    turned = torch.rot90(donor, turns, (1, 2))
    (top, left), *_ = _places(turned, generator)
    rows = (torch.arange(image.shape[1]) - centre[0] + top) % turned.shape[1]
    columns = (torch.arange(image.shape[2]) - centre[1] + left) % turned.shape[2]
    return turned[:, rows][:, :, columns]
