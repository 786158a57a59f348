"""Networks that give feature maps: one shape of network, whichever library built it.

A `Backbone` has ``forward(images) -> list of maps [B, C, h, w]`` (or one embedding ``[B, D]``) and says what its
weights expect. Level numbers follow timm: level i is the last map at the i-th resolution (strides 2, 4, 8, ...),
for a vision transformer the i-th block.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dracones.features.hub import require_hub
from dracones.features.names import MOBILENET_V1_WIDTHS, library_of

__all__ = ["Backbone", "build_backbone"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A raw network with its facts: `levels`, the weights' `mean` and `std`, and all `known_keys` of the full network.

    `fixed_size` is the only (height, width) that a transformer without position interpolation takes, else None.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        levels: tuple[int, ...] | None,
        mean: Sequence[float],
        std: Sequence[float],
        known_keys: frozenset[str],
        fixed_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.levels = levels
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.known_keys = known_keys
        self.fixed_size = fixed_size

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps `[B, C, h, w]` of the chosen levels, finest first; `[B, D]` where the network pools."""
        out = self.network(images)
        maps = list(out) if isinstance(out, list | tuple) else [out]
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":  # timm's windowed transformers
            return [level.permute(0, 3, 1, 2) if level.ndim == 4 else level for level in maps]
        return maps


class _SequentialLevels(nn.Module):
    """A torchvision ``features`` stack, cut after its deepest chosen level; keys stay ``features.N...``."""

    def __init__(self, features: nn.Sequential, taps: Sequence[int], pool: bool) -> None:
        super().__init__()
        self.features = features[: max(taps) + 1]
        self.taps = frozenset(taps)
        self.pool = pool

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            images = layer(images)
            if index in self.taps:
                maps.append(images)
        return [maps[-1].mean(dim=(2, 3))] if self.pool else maps


def build_backbone(
    name: str, *, levels: Sequence[int] | None = None, pooled: bool = False, channels: int = 3, pretrained: bool = False
) -> Backbone:
    """Build `name` for its feature maps at `levels` (None: all), or for its pooled embedding.

    Args:
        name: a timm name (tag allowed), a torchvision name where timm has none, or ``mobilenetv1_025/050/075``.
        levels: level numbers; strides 2, 4, 8, 16, 32 are levels 0 to 4 in most convolutional networks.
        pooled: give the embedding before the classifier instead of maps.
        channels: input channels of the first convolution.
        pretrained: fetch the published weights (network access).

    Raises:
        ValueError: unknown name (nearest names are listed), unknown level, or weights that cannot be fetched.
    """
    library = library_of(name)
    if levels is not None and (len(levels) == 0 or len(set(levels)) != len(levels)):
        raise ValueError(f"levels of {name} must be distinct and at least one; got {list(levels)}")
    try:
        if library == "torchvision":
            return _from_torchvision(name, levels, pooled, channels, pretrained)
        return _from_timm(name, levels, pooled, channels, pretrained)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ValueError(
            f"the pretrained weights of {name} could not be fetched ({type(error).__name__}: {error}); "
            f"give a local file instead, as weights='path/{name}.safetensors'"
        ) from error


def _from_timm(name: str, levels: Sequence[int] | None, pooled: bool, channels: int, pretrained: bool) -> Backbone:
    import timm

    if name in MOBILENET_V1_WIDTHS:
        if pretrained:
            raise ValueError(f"no hub has weights for {name}; give a local file, as weights='path/{name}.safetensors'")
        options: dict[str, Any] = {"in_chans": channels}

        def create(**more: Any) -> nn.Module:
            return _mobilenet_v1(MOBILENET_V1_WIDTHS[name], **options, **more)
    else:
        if pretrained:
            require_hub(name)
        options = {"in_chans": channels, "pretrained": pretrained}

        def create(**more: Any) -> nn.Module:
            return timm.create_model(name, **options, **more)

    with torch.device("meta"):
        whole: Any = (
            _mobilenet_v1(MOBILENET_V1_WIDTHS[name])
            if name in MOBILENET_V1_WIDTHS
            else timm.create_model(name, pretrained=False)
        )
    known = frozenset(whole.state_dict())
    mean, std = whole.pretrained_cfg["mean"], whole.pretrained_cfg["std"]
    fixed = tuple(whole.pretrained_cfg["input_size"][1:]) if whole.pretrained_cfg.get("fixed_input_size") else None
    resizable = fixed is not None and hasattr(whole, "dynamic_img_size")
    if resizable:  # a transformer that interpolates its position embedding to whatever comes
        options["dynamic_img_size"] = True
        fixed = None
    if pooled:
        network = create(num_classes=0)
        return Backbone(network, levels=None, mean=mean, std=std, known_keys=known, fixed_size=fixed)

    count = len(getattr(whole, "feature_info", ()))
    if count == 0:
        raise ValueError(f"{name} offers no feature maps in timm; use pooled=True for its embedding")
    chosen = _check_levels(name, levels, count)
    if hasattr(whole, "blocks") and hasattr(whole, "norm") and hasattr(whole, "forward_intermediates"):
        network = _token_maps(create(), chosen)
    else:
        network = create(features_only=True, out_indices=chosen)
    return Backbone(network, levels=chosen, mean=mean, std=std, known_keys=known, fixed_size=fixed)


def _token_maps(transformer: nn.Module, levels: tuple[int, ...]) -> nn.Module:
    """Tokens of the chosen blocks, through the network's own final norm, reshaped to maps (FastFlow's choice)."""
    from timm.models._features import FeatureGetterNet

    return FeatureGetterNet(transformer, out_indices=levels, norm=True)


def _mobilenet_v1(multiplier: float, *, in_chans: int = 3, **options: Any) -> nn.Module:
    from timm.models.efficientnet import _gen_mobilenet_v1

    # TensorFlow's network: "same" padding and its own epsilon, mean and std .5.
    network = _gen_mobilenet_v1(
        "mobilenetv1_100", multiplier, pretrained=False, pad_type="same", bn_eps=1e-3, in_chans=in_chans, **options
    )
    network.pretrained_cfg = {**network.pretrained_cfg, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    built: nn.Module = network
    return built


def _from_torchvision(
    name: str, levels: Sequence[int] | None, pooled: bool, channels: int, pretrained: bool
) -> Backbone:
    from torchvision import models

    model = models.get_model(name, weights="DEFAULT" if pretrained else None)
    features = getattr(model, "features", None)
    if not isinstance(features, nn.Sequential):
        raise ValueError(
            f"torchvision's {name} has no sequential `features`; use a timm name "
            "(dracones.features.backbone_names() lists them)"
        )
    mean, std = _IMAGENET_MEAN, _IMAGENET_STD
    if pretrained:
        transform = models.get_model_weights(name).DEFAULT.transforms()
        mean, std = tuple(transform.mean), tuple(transform.std)
    known = frozenset(model.state_dict())
    ends = _resolution_ends(features)
    chosen = _check_levels(name, levels, len(ends))
    if channels != 3:
        _widen_first_convolution(features, channels)
    if pooled:
        return Backbone(
            _SequentialLevels(features, [len(features) - 1], pool=True),
            levels=None,
            mean=mean,
            std=std,
            known_keys=known,
        )
    network = _SequentialLevels(features, [ends[level] for level in chosen], pool=False)
    return Backbone(network, levels=chosen, mean=mean, std=std, known_keys=known)


def _resolution_ends(features: nn.Sequential) -> list[int]:
    """Index of the last layer at each stride, found by one forward of shapes only (no memory, no arithmetic)."""
    side = 256
    image = torch.zeros(1, 3, side, side)
    ends: dict[int, int] = {}
    with torch.no_grad():
        for index, layer in enumerate(features):
            image = layer(image)
            # Unpadded convolutions end at 127 instead of 128: the nearest power of two is the stride meant.
            stride = 2 ** round(math.log2(side / image.shape[-1]))
            if stride > 1:
                ends[stride] = index
    return [ends[stride] for stride in sorted(ends)]


def _widen_first_convolution(features: nn.Sequential, channels: int) -> None:
    from dracones.features.weights import adapt_input_kernel

    for parent in features.modules():
        for key, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d) and layer.in_channels == 3 and layer.groups == 1:
                wider = nn.Conv2d(
                    channels,
                    layer.out_channels,
                    layer.kernel_size,  # type: ignore[arg-type]
                    layer.stride,  # type: ignore[arg-type]
                    layer.padding,  # type: ignore[arg-type]
                    bias=layer.bias is not None,
                )
                with torch.no_grad():
                    wider.weight.copy_(adapt_input_kernel(layer.weight, channels))
                    if layer.bias is not None and wider.bias is not None:
                        wider.bias.copy_(layer.bias)
                setattr(parent, key, wider)
                return


def _check_levels(name: str, levels: Sequence[int] | None, count: int) -> tuple[int, ...]:
    if levels is None:
        return tuple(range(count))
    positive = sorted(level + count if level < 0 else level for level in levels)
    if positive[0] < 0 or positive[-1] >= count:
        raise ValueError(f"{name} has levels 0 to {count - 1}; got {list(levels)}")
    return tuple(positive)
