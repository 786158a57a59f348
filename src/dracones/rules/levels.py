"""One-point statistics: what the histogram of an image's levels looks like, wherever the pixels lie."""

import math

import torch
from torch import Tensor

LEVEL_STATISTICS = ("contrast", "skewness", "level_entropy", "extreme_share")


def level_statistics(images: Tensor) -> dict[str, Tensor]:
    """Numbers [B] of the histogram of the brightness of images [B, C, H, W] in [0, 1].

    `contrast`: log standard deviation; `skewness`: third standardised moment, squashed by asinh; `level_entropy`:
    entropy of the 256 levels in bits; `extreme_share`: share of pixels at the very first or last level.

    >>> half = torch.tensor([0.0, 1.0]).repeat(1, 1, 8, 4)
    >>> {name: round(values.item(), 3) + 0.0 for name, values in level_statistics(half).items()}
    {'contrast': -0.693, 'skewness': 0.0, 'level_entropy': 1.0, 'extreme_share': 1.0}
    """
    if images.ndim != 4:
        raise ValueError(f"level_statistics: expected images [B, C, H, W], got {list(images.shape)}")
    luma = images.detach().double().mean(dim=1).flatten(1)
    centered = luma - luma.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1) + (1 / 255) ** 2 / 12  # that of rounding: a flat image stays finite
    skewness = centered.pow(3).mean(dim=1) / variance.pow(1.5)
    levels = (luma * 255).round().clamp(0, 255).long()
    none = torch.zeros_like(luma[:, :1]).expand(-1, 256)
    shares = none.scatter_add(1, levels, torch.ones_like(luma)) / luma.shape[1]
    return {
        "contrast": 0.5 * variance.log(),
        "skewness": _asinh(skewness),
        "level_entropy": -(shares * shares.clamp_min(1e-30).log()).sum(dim=1) / math.log(2),
        "extreme_share": shares[:, 0] + shares[:, 255],
    }


def _asinh(x: Tensor) -> Tensor:
    """To 1e-16 of 1, from operations that every runtime has in float64: onnxruntime has no asinh there."""
    size = x.abs()
    return x.sign() * (size + (size.square() + 1).sqrt()).log()
