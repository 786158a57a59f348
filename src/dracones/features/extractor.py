"""A frozen pretrained network as a function from images to features."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dracones.features.architectures import Backbone, build_backbone
from dracones.features.fusion import fold_batch_norm
from dracones.features.hollow import filled, within_hollow
from dracones.features.packaged import PACKAGED, read_packaged
from dracones.features.shapes import is_hollow, shapes_alone
from dracones.features.weights import WeightReport, load_weights
from dracones.files.weights import read_weights

__all__ = ["FeatureExtractor"]

_NO_BACKBONE = (AssertionError, RuntimeError, NotImplementedError, AttributeError, LookupError)
"""What libraries raise for networks that give no maps, or at no size that is tried."""


class FeatureExtractor(nn.Module):
    """Feature maps of a frozen backbone, for images `[B, C, H, W]` in [0, 1].

    Always in eval mode (``train()`` does not change it), so scores cannot depend on the batch; its weights take no
    gradient, images one if they ask for it. The weights' own mean and std are applied inside. Batch normalisation is
    folded into convolutions (`fold_batch_norm`), and maps are laid out channels-last, the fast layout for convolutions.

    Gray images are shown to an RGB backbone in all of its channels, exactly as their RGB version; another number of
    channels widens the first convolution (`adapt_input_kernel`; mean and std repeat in the same order).

    Args:
        name: a timm name, or a torchvision one where timm has none; see `backbone_names`.
        levels: level numbers, finest first; None takes all. Strides 2, 4, 8, 16, 32 are levels 0 to 4 in most
            convolutional networks; in a vision transformer levels are blocks, their tokens reshaped to a map.
        weights: a file (.safetensors; a pickle is read with tensors only), "pretrained" (from the hub), "packaged"
            (from a package that is installed, see `PACKAGED`), or "random".
        channels: channels of the images.
        pooled: the embedding before the classifier, `[B, D]`, instead of maps.

    Raises:
        ValueError: unknown name or level, weights that do not fit (with their keys) or cannot be fetched.
        FileNotFoundError: no such weight file.

    Example:
        >>> extractor = FeatureExtractor("resnet18", levels=(1, 2), weights="random", channels=1)
        >>> [tuple(level.shape) for level in extractor(torch.rand(2, 1, 64, 96))]
        [(2, 64, 16, 24), (2, 128, 8, 12)]
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        levels: Sequence[int] | None = None,
        weights: str | Path = "pretrained",
        channels: int = 3,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"images have at least one channel; got channels={channels}")
        self.name = name
        self.image_channels = channels
        self.pooled = pooled
        self._asked_levels = None if levels is None else tuple(levels)
        self.report: WeightReport | None = None
        self.load(weights)

    def load(self, weights: str | Path) -> Self:
        """Fill the network from `weights`, as in the class's arguments; what a file gave is in `report`."""
        try:
            try:
                return self._load(weights)
            except _NO_BACKBONE:
                if not within_hollow():
                    raise
                with filled():
                    return self._load(weights)
        except _NO_BACKBONE as error:
            raise ValueError(
                f"{self.name} cannot be taken as a backbone: its library builds it, and not for feature maps "
                f"({type(error).__name__}: {str(error)[:300] or 'no reason given'}); choose another, such as resnet18"
            ) from error

    def _load(self, weights: str | Path) -> Self:
        inner_channels = 3 if self.image_channels == 1 else self.image_channels
        # Layers draw their first weights from torch's global generator: use a seeded fork, leave the global alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = build_backbone(
                self.name,
                levels=self._asked_levels,
                pooled=self.pooled,
                channels=inner_channels,
                pretrained=str(weights) == "pretrained",
            )
        self.report = None
        if str(weights) == "packaged":
            self.report = load_weights(backbone.network, read_packaged(self.name), backbone.known_keys, self.name)
            backbone.mean, backbone.std = (PACKAGED[self.name].mean,) * 3, (PACKAGED[self.name].std,) * 3
        elif str(weights) not in ("pretrained", "random"):
            state = read_weights(weights)
            self.report = load_weights(backbone.network, state, backbone.known_keys, str(weights))
        self._adopt(backbone, inner_channels)
        return self

    def _adopt(self, backbone: Backbone, channels: int) -> None:
        backbone.eval().requires_grad_(False)
        self.patch = _patch_of(backbone)
        side = backbone.fixed_size or (_probe_side(self.patch[0]), _probe_side(self.patch[1]))
        with torch.no_grad(), shapes_alone(backbone):
            example = torch.zeros(1, channels, *side)
            fold_batch_norm(backbone.network, example)
            maps = backbone(example)
            # Unpadded convolutions lose cells at the rim, as many at any size: two sizes tell the stride.
            padded = self.pooled or backbone.fixed_size or all(side[0] % level.shape[2] == 0 for level in maps)
            more = None if padded else backbone(torch.zeros(1, channels, 2 * side[0], 2 * side[1]))
        device = self.mean.device if hasattr(self, "mean") else torch.device("cpu")
        placed = backbone if is_hollow(backbone) else backbone.to(device)
        self.backbone = placed.to(memory_format=torch.channels_last)
        self.backbone.requires_grad_(False).eval()
        self.levels = backbone.levels
        self.fixed_size = backbone.fixed_size
        self.channels: tuple[int, ...] = tuple(level.shape[1] for level in maps)
        self.strides: tuple[int, ...] = (
            ()
            if self.pooled
            else tuple(
                _stride(side[0], level.shape[2], None if more is None else more[i].shape[2])
                for i, level in enumerate(maps)
            )
        )
        for key, values in (("mean", backbone.mean), ("std", backbone.std)):
            repeated = [values[index % len(values)] for index in range(channels)]
            self.register_buffer(key, torch.tensor(repeated, device=device).view(1, channels, 1, 1))
        self._fingerprint: str | None = None

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in eval mode whatever is asked: a frozen backbone in train mode would change its scores."""
        return super().train(False)

    def map_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width of every level's map for images of this size (one forward of one blank image)."""
        with shapes_alone(self):
            blank = torch.zeros(1, self.image_channels, height, width, device=self.mean.device)
            return tuple((level.shape[2], level.shape[3]) for level in self(blank))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps `[B, C_l, h_l, w_l]` of the levels, finest first (one embedding `[B, D]` with `pooled`).

        Args:
            images: `[B, C, H, W]`, float, in [0, 1].

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: another number of channels or dimensions, or smaller than the deepest stride.
        """
        self._check(images)
        normalised = (images.to(self.mean.dtype) - self.mean) / self.std
        return tuple(self.backbone(normalised.contiguous(memory_format=torch.channels_last)))

    def _check(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise TypeError(f"{self.name}: expected float images in [0, 1]; got {images.dtype}, divide by its maximum")
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            raise ValueError(
                f"{self.name}: expected images [B, {self.image_channels}, H, W]; got {list(images.shape)}; "
                f"build the extractor with channels={images.shape[1] if images.ndim == 4 else '...'}"
            )
        size = (images.shape[2], images.shape[3])
        if self.fixed_size is not None and size != self.fixed_size:
            height, width = self.fixed_size
            raise ValueError(
                f"{self.name} takes images of {height}x{width} only; got {size[0]}x{size[1]}; "
                f"set size=({height}, {width})"
            )
        if any(side % cell for side, cell in zip(size, self.patch, strict=True)):
            raise ValueError(
                f"{self.name} cuts images in patches of {self.patch[0]}x{self.patch[1]}, and {size[0]}x{size[1]} is no "
                "multiple of them; choose a size that is one (at each scale, where there are several)"
            )
        smallest = max(self.strides, default=1)
        if min(size) < smallest:
            raise ValueError(
                f"{self.name}: images of {size[0]}x{size[1]} are smaller than one cell of the deepest level "
                f"(stride {smallest}); use larger images or shallower levels"
            )

    def fingerprint(self) -> str:
        """Hash of everything the features depend on: architecture, levels, weights, mean and std."""
        if self._fingerprint is None:
            facts = {"name": self.name, "levels": self.levels, "pooled": self.pooled, "channels": self.image_channels}
            digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
            for key, value in sorted(self.state_dict().items()):
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._fingerprint = None
        super()._load_from_state_dict(*args, **kwargs)

    def extra_repr(self) -> str:
        """Name, levels and widths."""
        return f"{self.name!r}, levels={self.levels}, channels={self.channels}, strides={self.strides}"


def _probe_side(patch: int) -> int:
    """Side of the blank image that tells widths and strides: the first multiple of a patch from 128 on."""
    return patch * math.ceil(128 / patch)


def _stride(side: int, cells: int, cells_of_twice: int | None) -> int:
    """Pixels a cell of a map stands for: from the cells of one side, and of twice that side where it was looked at.

    >>> _stride(128, 32, None), _stride(128, 31, 63), _stride(126, 18, None)
    (4, 4, 7)
    """
    if cells_of_twice is None or cells_of_twice == cells:
        return round(side / cells)
    return round(side / (cells_of_twice - cells))


def _patch_of(backbone: nn.Module) -> tuple[int, int]:
    """What both sides of an image have to be multiples of: a transformer's patch, where it pads nothing."""
    for module in backbone.modules():
        if type(module).__name__ == "PatchEmbed" and not getattr(module, "dynamic_img_pad", True):
            height, width = module.patch_size  # type: ignore[misc]
            return int(height), int(width)
    return 1, 1
