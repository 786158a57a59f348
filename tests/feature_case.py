"""A small inspection task for detectors on features: textured normals, a foreign square in anomalies."""

import torch


def normals(count=24, side=64, channels=3, seed=0):
    """Smooth stripes with a slightly random phase and a little noise, `[N, C, H, W]`."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(count, 1, 1, 1, generator=generator) * 0.5
    ramp = torch.linspace(0, 25, side).view(1, 1, 1, side)
    stripes = (0.5 + 0.3 * torch.sin(ramp + phase)).expand(count, channels, side, side)
    return (stripes + 0.02 * torch.randn(count, channels, side, side, generator=generator)).clamp(0, 1)


def anomalies(count=8, side=64, channels=3, seed=1):
    """Normals with a checkered square at a known place, and its mask."""
    images = normals(count, side, channels, seed).clone()
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[side // 4 : side // 2, side // 2 : 3 * side // 4] = True
    board = ((torch.arange(side)[:, None] // 2 + torch.arange(side) // 2) % 2).float()
    images[:, :, mask] = board[mask]
    return images, mask


SMALL = {"backbone": "mobilenetv1_025", "weights": "random", "size": (64, 64), "levels": (1, 2), "cache": False}
"""Options under which a detector on features fits in about a second."""
