"""What every extractor that shows a backbone its images otherwise has in common with the backbone itself."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from dracones.features.extractor import FeatureExtractor
from dracones.features.shapes import shapes_alone

__all__ = ["StandIn"]


class StandIn(nn.Module):
    """Holds a `FeatureExtractor` and stands in; a subclass gives `forward`, `channels`, `name`, `fingerprint`."""

    def __init__(self, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def mean(self) -> Tensor:
        """The extractor's; tells the device."""
        return self.extractor.mean

    def load(self, weights: str | Path) -> Self:
        """Fill the backbone; see `FeatureExtractor.load`."""
        self.extractor.load(weights)
        return self

    def map_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width of every map for images of this size."""
        with shapes_alone(self):
            blank = torch.zeros(1, self.extractor.image_channels, height, width, device=self.mean.device)
            return tuple((level.shape[2], level.shape[3]) for level in self(blank))
