"""Per-channel normalisation between [0, 1] and what a classifier was trained on."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalization(nn.Module):
    """``(image - mean) / std`` per channel, for any number of channels.

    Args:
        mean: one value per channel, or one for all, in [0, 1] units.
        std: likewise, above 0.

    Raises:
        ValueError: lengths that differ from each other or from the images' channels; a std that is not above 0.

    >>> Normalization([0.5], [0.25])(torch.ones(1, 3, 1, 1)).flatten()
    tensor([2., 2., 2.])
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise ValueError(f"mean and std need one value per channel each, got {len(mean)} and {len(std)}")
        if any(not value > 0 for value in std):
            raise ValueError(f"std must be above 0 in every channel, got {tuple(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1], ``[B, C, H, W]``, to normalised ones."""
        channels = self.mean.shape[1]
        if channels not in (1, images.shape[1]):
            raise ValueError(
                f"mean and std have {channels} channels, the images {images.shape[1]}; give one value per channel"
            )
        return (images - self.mean.to(images)) / self.std.to(images)

    def extra_repr(self) -> str:
        """Values shown in repr."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def warn_if_normalised(images: Tensor) -> None:
    """Warn when images that are about to be normalised already are, going by their statistics.

    Images in [0, 1] have no negative value; normalised ones have many, with a spread of about 1.
    """
    low, spread = float(images.min()), float(images.float().std())
    if low < -0.05 and spread > 0.4:
        warnings.warn(
            f"these images look normalised already (minimum {low:.2f}, standard deviation {spread:.2f}) and would be "
            "normalised twice; give images in [0, 1], or leave out mean and std",
            UserWarning,
            stacklevel=3,
        )


def warn_if_normalises_itself(model: nn.Module) -> None:
    """Warn when a classifier that will be given normalised images holds a normalisation layer at its input."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in {"Normalize", "Normalization", "Normalise", "NormalizeLayer", "InputNormalize"}:
            warnings.warn(
                f"the classifier normalises by itself (layer {name!r}, {kind}) and mean and std were given as well: "
                "its inputs would be normalised twice; leave out mean and std",
                UserWarning,
                stacklevel=3,
            )
            return
