"""A backbone shown small images at the size that its levels need."""

from torch import Tensor
from torch.nn.functional import interpolate

from dracones.features.extractor import FeatureExtractor
from dracones.features.stand_in import StandIn

__all__ = ["EnlargedExtractor"]


class EnlargedExtractor(StandIn):
    """Images whose shorter side is below `side` brought there bilinearly, others as they are; then the backbone.

    All images pass the same way, so that enlarging tells none from another. Stands in for a `FeatureExtractor`.

    Args:
        extractor: of any levels.
        side: pixels.

    Raises:
        ValueError: no pixel.

    Example:
        >>> import torch
        >>> backbone = FeatureExtractor("resnet18", levels=(2,), weights="random")
        >>> [tuple(level.shape) for level in EnlargedExtractor(backbone, 64)(torch.rand(1, 3, 16, 32))]
        [(1, 128, 8, 16)]
    """

    def __init__(self, extractor: FeatureExtractor, side: int) -> None:
        super().__init__(extractor)
        if side < 1:
            raise ValueError(f"an image has at least one pixel a side; got side={side}")
        self.side = side
        self.channels = extractor.channels
        self.name = f"{extractor.name} from {side} pixels on"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps `[B, C_l, h_l, w_l]` of the enlarged images, finest first."""
        height, width = images.shape[2], images.shape[3]
        if min(height, width) < self.side:
            scale = self.side / min(height, width)
            size = (round(height * scale), round(width * scale))
            images = interpolate(images, size=size, mode="bilinear", align_corners=False)
        maps: tuple[Tensor, ...] = self.extractor(images)
        return maps

    def fingerprint(self) -> str:
        """The extractor's, and the side."""
        return f"{self.extractor.fingerprint()}/from{self.side}"
