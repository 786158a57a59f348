"""All levels of a backbone for the image as it is, and the deepest one again for the image at smaller sizes."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from dracones.features.extractor import FeatureExtractor
from dracones.features.stand_in import StandIn
from dracones.images.resize import resize

__all__ = ["ScaledExtractor", "Shrinking"]

Shrinking = Literal["bilinear", "nearest"]


class ScaledExtractor(StandIn):
    """One pass that serves methods of positions (all levels) and of the whole image (the deepest level, several sizes).

    Stands in for a `FeatureExtractor`.

    Args:
        extractor: of any levels.
        scales: how many image sizes, each half the one before; 1 adds nothing.
        shrinking: bilinear, with antialiasing; or nearest, which keeps every second pixel of the size before, as the
            code of DifferNet and CS-Flow does: fine textures then alias into coarse ones.

    Raises:
        ValueError: no scale.

    Example:
        >>> import torch
        >>> backbone = FeatureExtractor("resnet18", levels=(1, 2), weights="random")
        >>> [tuple(level.shape) for level in ScaledExtractor(backbone, 2)(torch.rand(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 128, 4, 4)]
    """

    def __init__(self, extractor: FeatureExtractor, scales: int, shrinking: Shrinking = "bilinear") -> None:
        super().__init__(extractor)
        if scales < 1:
            raise ValueError(f"an image is seen at one scale at least; got scales={scales}")
        self.scales = scales
        self.shrinking = shrinking
        self.channels = extractor.channels + extractor.channels[-1:] * (scales - 1)
        self.name = f"{extractor.name} at {scales} scales"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps `[B, C, h, w]`: the levels, finest first, then the deepest of each smaller image."""
        smallest, stride = _shrunk(images, self.scales - 1), max(self.extractor.strides, default=1)
        if min(smallest) < stride:
            raise ValueError(
                f"{self.extractor.name}: images of {images.shape[2]}x{images.shape[3]} are {smallest[0]}x{smallest[1]} "
                f"at the smallest of {self.scales} scales, less than one cell (stride {stride}); "
                "use larger images, fewer scales or a shallower level"
            )
        maps = list(self.extractor(images))
        for scale in range(1, self.scales):
            maps.append(self.extractor(self._smaller(images, scale))[-1])
        return tuple(maps)

    def fingerprint(self) -> str:
        """The extractor's, the scales, and how images are shrunk where it is not bilinearly."""
        how = "" if self.shrinking == "bilinear" else f"/{self.shrinking}"
        return f"{self.extractor.fingerprint()}/{self.scales}{how}"

    def _smaller(self, images: Tensor, scale: int) -> Tensor:
        size = _shrunk(images, scale)
        if self.shrinking == "bilinear":
            return resize(images, size)
        # `resize` would take the pixel nearest to each cell's middle; the papers' code takes the cell's first.
        return F.interpolate(images, size=size, mode="nearest")


def _shrunk(images: Tensor, scale: int) -> tuple[int, int]:
    return images.shape[2] >> scale, images.shape[3] >> scale
