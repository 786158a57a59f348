"""What is kept of a feature map when its positions do not matter."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dracones.features.enlarged import EnlargedExtractor
from dracones.features.extractor import FeatureExtractor
from dracones.features.scaled import ScaledExtractor

__all__ = ["Statistic", "StatisticPool", "pooled_statistics"]

Statistic = Literal["mean", "max", "std"]


def pooled_statistics(maps: Sequence[Tensor], statistics: Sequence[Statistic]) -> Tensor:
    """Embedding `[B, D]` of maps `[B, C_l, h_l, w_l]`: level by level, statistic by statistic over all positions.

    Example:
        >>> pooled_statistics([torch.tensor([[[[1.0, 3.0]]]])], ("mean", "max", "std"))
        tensor([[2., 3., 1.]])
    """
    parts = []
    for level in maps:
        flat = level.float().flatten(2)
        for statistic in statistics:
            if statistic == "mean":
                parts.append(flat.mean(dim=2))
            elif statistic == "max":
                parts.append(flat.amax(dim=2))
            else:
                parts.append(flat.std(dim=2, correction=0))
    return torch.cat(parts, dim=1)


class StatisticPool(nn.Module):
    """Statistics over positions of every channel of every level, joined to one embedding `[B, D]` an image.

    Example:
        >>> backbone = FeatureExtractor("resnet18", levels=(2, 3), weights="random")
        >>> StatisticPool(backbone, ("mean", "std"))(torch.rand(2, 3, 64, 64))[0].shape
        torch.Size([2, 768])
    """

    def __init__(
        self, extractor: FeatureExtractor | ScaledExtractor | EnlargedExtractor, statistics: Sequence[Statistic]
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.statistics = tuple(statistics)
        self.name = f"{extractor.name}, pooled"

    @property
    def mean(self) -> Tensor:
        """The extractor's; tells the device."""
        return self.extractor.mean

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """`[B, D]`: level by level, statistic by statistic."""
        return (pooled_statistics(self.extractor(images), self.statistics),)

    def fingerprint(self) -> str:
        """The extractor's, and the statistics."""
        return f"{self.extractor.fingerprint()}/{'+'.join(self.statistics)}"
