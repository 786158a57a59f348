"""From level maps to one heat map, and from a heat map to one score."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

ImageScore = Literal["max", "top", "mean"]


def at_size(level: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """A map `[B, h, w]` at `size`, bilinear; corners meet corners with `align_corners`, else edges meet edges."""
    if tuple(level.shape[1:]) == size:
        return level
    return F.interpolate(level[:, None], size=size, mode="bilinear", align_corners=align_corners)[:, 0]


def mean_at_size(levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Mean of maps `[B, h_l, w_l]`, each brought to `size`."""
    return torch.stack([at_size(level, size) for level in levels]).mean(dim=0)


def image_score(heat: Tensor, how: ImageScore, top_share: float) -> Tensor:
    """Score `[B]` of a heat map `[B, H, W]`: its maximum, the mean of its top share of pixels, or its mean.

    Example:
        >>> heat = torch.tensor([[[0.0, 1.0], [2.0, 5.0]]])
        >>> [float(image_score(heat, how, 0.5)) for how in ("max", "top", "mean")]
        [5.0, 3.5, 2.0]
    """
    pixels = heat.flatten(1)
    if how == "max":
        return pixels.amax(dim=1)
    if how == "mean":
        return pixels.mean(dim=1)
    count = max(1, round(top_share * pixels.shape[1]))
    return pixels.topk(count, dim=1).values.mean(dim=1)


def blur(heat: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of `[B, H, W]` in pixels, edges mirrored; kernel cut at four sigma.

    Where the map is smaller than half the kernel, the kernel is cut to what mirrors. (torchvision's `gaussian_blur`
    gives the same map to 2e-6, refuses such small ones, and takes 1.2 to 7 times as long, as its kernel is one square
    and not two lines: `benchmarks/alternatives`.)
    """
    if sigma <= 0:
        return heat
    radius = max(1, min(round(4 * sigma), heat.shape[1] - 1, heat.shape[2] - 1))
    reach = torch.arange(-radius, radius + 1, dtype=heat.dtype, device=heat.device)
    kernel = torch.exp(-0.5 * (reach / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(heat[:, None], (radius, radius, radius, radius), mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1))[:, 0]
