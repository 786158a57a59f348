"""MSFlow: a flow on each level's map, and one that joins the levels."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dracones.features import SinusoidalPosition
from dracones.flows import AllInOne, Chain, PaddingMode, ZeroConv2d
from dracones.methods.feature_flows.csflow import CrossScaleStep
from dracones.methods.feature_flows.highest import highest_by_level
from dracones.methods.heatmap import ImageScore, at_size, image_score
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext
from dracones.methods.on_features import FeatureMethod, MapConfig, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.training import TrainingConfig

Maps = tuple[Tensor, ...]


class MSFlowConfig(MapConfig):
    """The paper's values; ``fast`` trains 12 epochs at 256 pixels, ``balanced`` 40, ``best`` the paper's 100 at 512."""

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"training": {"epochs": 12, "learning_rate": 5e-4}},
        "balanced": {"training": {"epochs": 40, "patience": 10}},
        "best": {"size": (512, 512), "training": {"patience": 25}},
    }

    steps: tuple[int, ...] = Field((2, 5, 8), min_length=1, description="flow steps of each level, finest first")
    position_dims: int = Field(64, ge=4, multiple_of=4, description="dimensions of the positional condition")
    clamp: float = Field(1.9, gt=0, description="bound of the log-scale")
    padding: PaddingMode = Field(
        "reflect", description="of the levels' convolutions at a map's border: reflect, or zeros as in the paper"
    )
    fusion_hidden: int = Field(64, ge=1, description="hidden channels of the network that joins the levels")
    image_score: ImageScore = Field("top", description="of the product map: top (share), max or mean")
    top_share: float = Field(0.03, gt=0, le=1, description="share of pixels that image_score=top averages; the paper's")
    training: TrainingConfig = Field(
        TrainingConfig(
            epochs=100,
            batch_size=16,
            learning_rate=1e-4,
            optimizer="adam",
            clip_norm=2.0,
            warmup=0.03,
            warmup_start=0.1,
            schedule="step",
            milestones=(0.7, 0.9),
            decay=0.33,
        ),
        description="how the flows are trained",
    )


class PositionedConvNet(nn.Module):
    """3×3 convolution, normalisation of each position's channels, ReLU, 3×3 convolution; position codes come in too."""

    def __init__(self, in_channels: int, out_channels: int, padding: PaddingMode = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, in_channels, 3, padding=1, padding_mode=padding)
        self.over_channels = nn.LayerNorm(in_channels)
        self.last = ZeroConv2d(in_channels, out_channels, 3, padding_mode=padding)

    def forward(self, maps: Tensor) -> Tensor:
        """`[B, in, h, w]` to `[B, out, h, w]`."""
        normal = self.over_channels(self.first(maps).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        out: Tensor = self.last(F.relu(normal))
        return out


@register
class MSFlow(FeatureMethod):
    r"""Flows in parallel on three levels, with positional codes, then one coupling across the levels.

    With :math:`\ell_l = -\frac12 \overline{z^2}` of a position at level l and :math:`p_l = \exp(\ell_l - \max \ell_l)`,
    the heat map is :math:`\sum_l (1 - p_l)`; the image score the mean of the top 3 % of :math:`1 - \prod_l p_l`
    (sections III-C and III-D), where, as in the paper's code, the product is relative to its largest in the image.

    Chosen over U-Flow, the other strong follow-up: its published last-epoch numbers are high (image .994, pixel .985
    on MVTec AD), it needs no transformer at two sizes, and its learning rate is one for all categories.

    Deviations. In the map :math:`\max \ell_l` is over the training images and kept (the paper: over the test set, the
    code: over each image), so that maps of different images compare. Levels are joined by CS-Flow's cross-scale
    coupling (in both directions, neighbours alone) in place of the paper's one-directional one among all levels.
    Convolutions of the levels see a map reflected at its border (the code: zeros), which makes good images that were
    not learnt from likelier (`benchmarks/inspection`, `results/held_out.json`).

    Reference:
        Zhou, Xu, Song, Shen, Shen 2024, "MSFlow: Multi-Scale Flow-based Framework for Unsupervised Anomaly Detection".
    """

    Config = MSFlowConfig
    config: MSFlowConfig
    info = MethodInfo(
        "msflow",
        "MSFlow: Multi-Scale Flow-based Framework for Unsupervised Anomaly Detection",
        ("Zhou", "Xu", "Song", "Shen", "Shen"),
        2024,
        "arXiv:2308.15300",
        "feature flow",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="parallel flows on feature levels, joined across levels",
    )
    highest: Tensor

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """Flows of each level, the coupling that joins them, the highest log-densities.

        Raises:
            ValueError: levels and steps are not as many, or a pooled map is too small to be reflected.
        """
        config = self.config
        if config.padding == "reflect" and min(min(size) for size in sizes) <= 2:
            raise ValueError(
                f"msflow: padding='reflect' needs maps of 3x3 positions at least, which are pooled to 2x2; got levels "
                f"of {list(sizes)}: take larger images, finer levels or padding='zeros'"
            )
        if len(config.steps) != len(channels):
            raise ValueError(
                f"msflow needs one number of steps a level: {len(channels)} levels, steps={config.steps}; "
                "set levels or steps"
            )
        generator = torch.Generator().manual_seed(config.seed)
        self.flows = nn.ModuleList(
            level_flow(width, count, config, generator) for width, count in zip(channels, config.steps, strict=True)
        )
        self.fusion = CrossScaleStep(
            channels, hidden=config.fusion_hidden, kernel=3, clamp=config.clamp, generator=generator
        )
        self.position = SinusoidalPosition(config.position_dims)
        self.register_buffer("highest", torch.zeros(len(channels)))

    def encode(self, maps: Maps) -> tuple[Maps, Maps]:
        """Latent maps, and log-det per position `[B, h_l, w_l]`, of pooled feature maps."""
        latents, log_dets = [], []
        for flow, level in zip(self._level_flows(), maps, strict=True):
            z, shares = flow.encode_map(level, self._codes(level))
            latents.append(z)
            log_dets.append(shares)
        joined, more = self.fusion.encode(tuple(latents))
        return joined, tuple(a + b for a, b in zip(log_dets, more, strict=True))

    def decode(self, latents: Maps) -> Maps:
        """Pooled feature maps from latent maps; exact."""
        parallel, _ = self.fusion.decode(latents)
        pairs = zip(self._level_flows(), parallel, strict=True)
        return tuple(flow.decode(z, self._codes(z))[0] for flow, z in pairs)

    def _level_flows(self) -> list[Chain]:
        return [flow for flow in self.flows if isinstance(flow, Chain)]

    def _codes(self, maps: Tensor) -> Tensor:
        codes: Tensor = self.position(maps.shape[2], maps.shape[3])
        return codes[None].to(maps.dtype)

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Negative log-likelihood, nats per feature value, summed over levels; constant left out."""
        latents, log_dets = self.encode(pooled(tuple(batch)))
        losses = [
            (0.5 * z.float().square().sum(dim=1) - log_det.float()).mean() / z.shape[1]
            for z, log_det in zip(latents, log_dets, strict=True)
        ]
        return torch.stack(losses).sum()

    def fit_statistics(self, context: FitContext) -> None:
        """The highest log-density of each level over the training images."""
        self.highest.copy_(highest_by_level(self, context, self.log_densities))

    def log_densities(self, maps: Maps) -> list[Tensor]:
        """`-mean z^2 / 2` `[B, h_l, w_l]` of every position of every level."""
        latents, _ = self.encode(pooled(maps))
        return [-0.5 * z.float().square().mean(dim=1) for z in latents]

    def refuse_outdated(self, names: Collection[str]) -> None:
        """Refuse flows that normalised over channels and positions together: here they would give other scores."""
        if any(name.endswith(".norm.weight") for name in names):
            raise ValueError(
                "its flows normalise over channels and positions together, and this version each position's channels: "
                "fit it again, or score it with the version that wrote it"
            )

    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:
        """Mean of the top share of the product map `[B]`, and the sum map `[B, H, W]`.

        The product map is relative to the image's own most likely position, as in the paper's code: it says how much a
        place stands out within its image, whatever the image's level. The sum map is relative to the training images'.
        """
        levels = self.log_densities(maps)
        sized = [at_size(level, size) for level in levels]
        heat = torch.stack([1 - (level - top).exp() for level, top in zip(sized, self.highest, strict=True)]).sum(dim=0)
        joint = torch.stack(sized).sum(dim=0)
        product = 1 - (joint - joint.amax(dim=(1, 2), keepdim=True)).exp()
        return Scores(image_score(product, self.config.image_score, self.config.top_share), heat)


def level_flow(channels: int, steps: int, config: MSFlowConfig, generator: torch.Generator) -> Chain:
    """The conditional flow of one level, on pooled maps."""
    return Chain(
        *(
            AllInOne(
                channels,
                partial(PositionedConvNet, padding=config.padding),
                clamp=config.clamp,
                context_features=config.position_dims,
                generator=generator,
            )
            for _ in range(steps)
        )
    )


def pooled(maps: Maps) -> Maps:
    """Each level averaged over 3×3 windows at every second position, as the paper does first."""
    return tuple(F.avg_pool2d(level, 3, stride=2, padding=1) for level in maps)
