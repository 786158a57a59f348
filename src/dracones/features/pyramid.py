"""The same image seen at several sizes through one backbone."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dracones.features.extractor import FeatureExtractor
from dracones.features.scaled import ScaledExtractor, Shrinking

__all__ = ["ImagePyramid", "RotatedEmbedding", "rotated"]


class ImagePyramid(ScaledExtractor):
    """One level of a backbone for the image at full, half, quarter ... size; stands in for a `FeatureExtractor`.

    Args:
        extractor: of exactly one level.
        scales: how many sizes, each half the one before.
        shrinking: bilinear, or nearest; see `ScaledExtractor`.

    Raises:
        ValueError: the extractor has several levels; no scale.

    Example:
        >>> backbone = FeatureExtractor("resnet18", levels=(2,), weights="random")
        >>> [tuple(level.shape) for level in ImagePyramid(backbone, 3)(torch.rand(1, 3, 64, 64))]
        [(1, 128, 8, 8), (1, 128, 4, 4), (1, 128, 2, 2)]
    """

    def __init__(self, extractor: FeatureExtractor, scales: int, shrinking: Shrinking = "bilinear") -> None:
        if len(extractor.channels) != 1:
            raise ValueError(f"an image pyramid takes one level of the backbone; got levels={extractor.levels}")
        super().__init__(extractor, scales, shrinking)


class RotatedEmbedding(nn.Module):
    """Globally averaged features of all scales, of the image turned by each of some angles; `[B, angles, D]` flattened.

    Gives a cache one vector `[angles * D]` an image.
    """

    def __init__(self, pyramid: ImagePyramid, angles: Sequence[float]) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.angles = tuple(angles)
        self.name = f"{pyramid.name}, {len(self.angles)} rotations"

    @property
    def mean(self) -> Tensor:
        """The extractor's; tells the device."""
        return self.pyramid.mean

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """One row an image, the embeddings of its turns side by side."""
        turns = [self.embedding(rotated(images, angle)) for angle in self.angles]
        return (torch.cat(turns, dim=1),)

    def embedding(self, images: Tensor) -> Tensor:
        """`[B, D]`: the mean over positions of every scale's map, joined."""
        maps = self.pyramid(images)
        return torch.cat([level.float().mean(dim=(2, 3)) for level in maps], dim=1)

    def fingerprint(self) -> str:
        """The pyramid's, and the angles."""
        turns = hashlib.sha256(repr(self.angles).encode()).hexdigest()
        return f"{self.pyramid.fingerprint()}/{turns}"


def rotated(images: Tensor, degrees: float) -> Tensor:
    """Images turned counter-clockwise about their centre, bilinear; corners that come from outside are black.

    Example:
        >>> rotated(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 90.0).round().tolist()
        [[[[2.0, 4.0], [1.0, 3.0]]]]
    """
    if degrees % 360 == 0:
        return images
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    cosine, sine = float(angle.cos()), float(angle.sin())
    height, width = images.shape[2], images.shape[3]
    # affine_grid works in units of half the side, which differ where the image is not square.
    matrix = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    grid = F.affine_grid(matrix[None].to(images), [1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(
        images, grid.expand(images.shape[0], -1, -1, -1), mode="bilinear", padding_mode="zeros", align_corners=False
    )
