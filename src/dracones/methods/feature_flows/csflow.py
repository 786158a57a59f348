"""CS-Flow: maps of three image sizes flow together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dracones.features import ImagePyramid
from dracones.features.scaled import Shrinking
from dracones.flows import ActNorm
from dracones.flows.conditioners import PaddingMode
from dracones.methods.heatmap import ImageScore, at_size, image_score
from dracones.methods.info import MethodInfo
from dracones.methods.on_features import FeatureMethod, MapConfig, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.training import TrainingConfig

Maps = tuple[Tensor, ...]


# The paper's rate is for 240 epochs of a wide network: in a tenth of them a narrow one hardly leaves its start.
_CONVERGED: dict[str, Any] = {"learning_rate": 3e-3, "schedule": "cosine", "final_fraction": 0.01}


class CSFlowConfig(MapConfig):
    """The paper's values except for the backbone (its EfficientNet-B5 is ``efficientnet_b5``, level 3, size 768).

    ``fast`` has hidden layers of 128 channels instead of 1,024 and 20 epochs at 256 pixels; ``balanced`` 256 channels
    and at most 60 epochs. Both train from fifteen times the paper's rate down along a cosine, and stop where held-out
    images gain no more. ``best``: the paper's network and training.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"hidden": 128, "size": (256, 256), "training": {**_CONVERGED, "epochs": 20, "patience": 5}},
        "balanced": {"hidden": 256, "training": {**_CONVERGED, "epochs": 60, "patience": 8}},
        "best": {"size": (768, 768)},
    }

    levels: tuple[int, ...] | None = Field((3,), min_length=1, max_length=1, description="the level that is used")
    size: tuple[int, int] | None = Field((384, 384), description="height, width of the largest of the scales")
    scales: int = Field(3, ge=2, description="image sizes, each half the one before")
    pyramid: Shrinking = Field(
        "bilinear", description="how images are shrunk: bilinear (antialiased), or nearest as in the paper's code"
    )
    padding: PaddingMode = Field(
        "zeros", description="what the networks see beyond a map's border: zeros as in the paper, or the map reflected"
    )
    kernels: tuple[int, ...] = Field((3, 3, 3, 5), min_length=1, description="kernel of each block")
    hidden: int = Field(1024, ge=1, description="hidden channels of the cross-scale networks")
    clamp: float = Field(3.0, gt=0, description="bound of the log-scale")
    image_score: ImageScore = Field(
        "mean", description="mean: of z²/2 over all positions and scales (the paper); max; top"
    )
    training: TrainingConfig = Field(
        TrainingConfig(
            epochs=240,
            batch_size=16,
            learning_rate=2e-4,
            epsilon=1e-4,
            weight_decay=1e-5,
            clip_norm=1.0,
            optimizer="adam",
        ),
        description="how the flow is trained",
    )


class CrossScaleConv(nn.Module):
    """The s,t-network: each scale's hidden map also speaks to the next finer and the next coarser scale.

    Per scale a convolution and a leaky ReLU (slope 0.1); then each output is the sum of a convolution of the
    scale's own hidden map, of the coarser one's brought up bilinearly, and of a strided one of the finer one's; times
    a learnt gain per scale that starts at zero, so a new block only permutes. Neighbours need not be exact halves.
    """

    def __init__(
        self, read: Sequence[int], out: Sequence[int], hidden: int, kernel: int, padding: PaddingMode = "zeros"
    ) -> None:
        super().__init__()
        pad = kernel // 2

        def layers(inputs: Sequence[int], outputs: Sequence[int], stride: int = 1) -> nn.ModuleList:
            widths = zip(inputs, outputs, strict=True)
            return nn.ModuleList(nn.Conv2d(i, o, kernel, stride, pad, padding_mode=padding) for i, o in widths)

        inner = [hidden] * len(read)
        self.first = layers(read, inner)
        self.same = layers(inner, out)
        self.up = layers(inner[1:], out[:-1])
        self.down = layers(inner[:-1], out[1:], stride=2)
        self.gain = nn.Parameter(torch.zeros(len(read)))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map `[B, out, h_s, w_s]` a scale."""
        hidden = [F.leaky_relu(layer(level), 0.1, inplace=True) for layer, level in zip(self.first, maps, strict=True)]
        outputs = []
        for scale, own in enumerate(hidden):
            total = self.same[scale](own)
            if scale + 1 < len(hidden):
                total = total + self.up[scale](_at_size(hidden[scale + 1], own))
            if scale > 0:
                total = total + _at_size(self.down[scale - 1](hidden[scale - 1]), own)
            outputs.append(total * self.gain[scale])
        return outputs


def _at_size(x: Tensor, like: Tensor) -> Tensor:
    """Bilinearly brought to the height and width of `like`."""
    size = like.shape[2:]
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class CrossScaleStep(nn.Module):
    r"""A permutation of each scale's channels, then a coupling in both directions, all scales at once.

    :math:`y_1 = x_1 e^{s_2} + t_2` with :math:`(s_2, t_2)` from all scales' second halves, then
    :math:`y_2 = x_2 e^{s_1} + t_1` from all scales' new first halves, where
    :math:`s = \alpha \frac{2}{\pi} \arctan(a / \alpha)`.
    (The paper's code inverts with the wrong slices; it never inverts. Here decode is tested against encode.)
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        hidden: int,
        kernel: int,
        clamp: float,
        generator: torch.Generator,
        padding: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.first_half = [width // 2 for width in channels]
        rest = [width - half for width, half in zip(channels, self.first_half, strict=True)]
        for scale, width in enumerate(channels):
            self.register_buffer(f"order{scale}", torch.randperm(width, generator=generator))
        self.from_second = CrossScaleConv(rest, [2 * width for width in self.first_half], hidden, kernel, padding)
        self.from_first = CrossScaleConv(self.first_half, [2 * width for width in rest], hidden, kernel, padding)

    def encode(self, maps: Maps) -> tuple[Maps, Maps]:
        """Latent maps, and the log-det per position `[B, h_s, w_s]` of each scale."""
        mixed = [level.index_select(1, self._order(scale)) for scale, level in enumerate(maps)]
        first, second = self._halves(mixed)
        first, gained = self._change(first, self.from_second(second))
        second, gained_too = self._change(second, self.from_first(first))
        joined = tuple(torch.cat(pair, dim=1) for pair in zip(first, second, strict=True))
        return joined, tuple(a + b for a, b in zip(gained, gained_too, strict=True))

    def decode(self, maps: Maps) -> tuple[Maps, Maps]:
        """Inverse of `encode`; the log-det is encode's."""
        first, second = self._halves(maps)
        second, gained_too = self._change_back(second, self.from_first(first))
        first, gained = self._change_back(first, self.from_second(second))
        joined = [torch.cat(pair, dim=1) for pair in zip(first, second, strict=True)]
        back = tuple(x.index_select(1, self._order(scale).argsort()) for scale, x in enumerate(joined))
        return back, tuple(a + b for a, b in zip(gained, gained_too, strict=True))

    def _halves(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        pairs = list(zip(maps, self.first_half, strict=True))
        return [x[:, :half] for x, half in pairs], [x[:, half:] for x, half in pairs]

    def _order(self, scale: int) -> Tensor:
        return self.get_buffer(f"order{scale}")

    def _terms(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = raw.to(x.dtype).chunk(2, dim=1)
        return self.clamp * (2 / math.pi) * torch.atan(s / self.clamp), t

    def _change(self, maps: list[Tensor], raws: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        terms = [self._terms(x, raw) for x, raw in zip(maps, raws, strict=True)]
        changed = [torch.addcmul(t, x, s.exp()) for x, (s, t) in zip(maps, terms, strict=True)]
        return changed, [s.sum(dim=1) for s, _ in terms]

    def _change_back(self, maps: list[Tensor], raws: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        terms = [self._terms(x, raw) for x, raw in zip(maps, raws, strict=True)]
        changed = [(x - t) * (-s).exp() for x, (s, t) in zip(maps, terms, strict=True)]
        return changed, [s.sum(dim=1) for s, _ in terms]


@register
class CSFlow(FeatureMethod):
    """A flow over the feature maps of an image at three sizes, joined by cross-scale convolutions.

    The image score is the mean of z²/2 over all positions, channels and scales; the heat map is the channels' mean of
    z²/2 of the finest scale (sections 3.3 and 4.4). Trained with the negative log-likelihood per dimension.

    Deviation: an ActNorm for each scale comes first, because the features of other backbones than EfficientNet-B5
    differ in scale by orders of magnitude. Smaller images are antialiased; ``pyramid="nearest"`` is the code's, which
    keeps every second pixel and aliases. Beyond a map's border the convolutions see zeros, as in the paper;
    ``padding="reflect"`` shows them the map itself.

    Reference:
        Rudolph, Wehrbein, Rosenhahn, Wandt 2022, "Fully Convolutional Cross-Scale-Flows for Image-based Defect
        Detection", section 3.
    """

    Config = CSFlowConfig
    config: CSFlowConfig
    info = MethodInfo(
        "csflow",
        "Fully Convolutional Cross-Scale-Flows for Image-based Defect Detection",
        ("Rudolph", "Wehrbein", "Rosenhahn", "Wandt"),
        2022,
        "arXiv:2110.02855",
        "feature flow",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="three image sizes flow together; strong image scores, coarse maps",
    )

    def make_extractor(self, channels: int) -> ImagePyramid:
        """The backbone at several image sizes."""
        return ImagePyramid(self.make_backbone(channels), self.config.scales, self.config.pyramid)

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """The blocks.

        Raises:
            ValueError: a scale's map is too small to be reflected.
        """
        widest = max(self.config.kernels) // 2
        if self.config.padding == "reflect" and min(min(size) for size in sizes) <= widest:
            raise ValueError(
                f"csflow: padding='reflect' needs maps of {widest + 1}x{widest + 1} positions at least; got scales of "
                f"{list(sizes)}: take larger images, fewer scales, a finer level or padding='zeros'"
            )
        generator = torch.Generator().manual_seed(self.config.seed)
        self.norms = nn.ModuleList(ActNorm(width) for width in channels)
        self.steps = nn.ModuleList(
            CrossScaleStep(
                channels,
                hidden=self.config.hidden,
                kernel=kernel,
                clamp=self.config.clamp,
                generator=generator,
                padding=self.config.padding,
            )
            for kernel in self.config.kernels
        )

    def encode(self, maps: Maps) -> tuple[Maps, Maps]:
        """Latent maps, and log-det per position, of all scales."""
        norms = self._scalers()
        scaled = [norm.encode(level)[0] for norm, level in zip(norms, maps, strict=True)]
        total = tuple(torch.zeros_like(x[:, 0]) + norm.log_scale.sum() for norm, x in zip(norms, scaled, strict=True))
        maps = tuple(scaled)
        for step in self.steps:
            maps, gained = step.encode(maps)  # type: ignore[operator]
            total = tuple(a + b for a, b in zip(total, gained, strict=True))
        return maps, total

    def decode(self, latents: Maps) -> Maps:
        """Feature maps from latent maps; exact."""
        for step in reversed(self.steps):
            latents, _ = step.decode(latents)  # type: ignore[operator]
        return tuple(norm.decode(level)[0] for norm, level in zip(self._scalers(), latents, strict=True))

    def _scalers(self) -> list[ActNorm]:
        return [norm for norm in self.norms if isinstance(norm, ActNorm)]

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Negative log-likelihood per dimension, constant left out (equation 5)."""
        latents, log_dets = self.encode(tuple(batch))
        energy = torch.stack([0.5 * z.float().square().flatten(1).sum(dim=1) for z in latents]).sum(dim=0)
        log_det = torch.stack([share.float().flatten(1).sum(dim=1) for share in log_dets]).sum(dim=0)
        return ((energy - log_det) / sum(z[0].numel() for z in latents)).mean()

    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:
        """The mean of z²/2 `[B]` (or what ``image_score`` says of the map), and the finest scale's heat map."""
        latents, _ = self.encode(maps)
        squares = [0.5 * z.float().square() for z in latents]
        heat = at_size(squares[0].mean(dim=1), size)
        if self.config.image_score != "mean":
            return Scores(image_score(heat, self.config.image_score, self.config.top_share), heat)
        total = torch.stack([square.flatten(1).sum(dim=1) for square in squares]).sum(dim=0)
        return Scores(total / sum(square[0].numel() for square in squares), heat)
