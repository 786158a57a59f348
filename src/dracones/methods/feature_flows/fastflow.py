"""FastFlow: two-dimensional flows on the maps of a frozen backbone."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dracones.flows import AllInOne, Chain, ConvNet, PaddingMode
from dracones.flows.precision import full_precision
from dracones.methods.feature_flows.by_parts import mean_loss_by_parts
from dracones.methods.feature_flows.map_whitening import MapWhitening
from dracones.methods.heatmap import mean_at_size
from dracones.methods.info import MethodInfo
from dracones.methods.learning import Parts, Trainee
from dracones.methods.on_features import MapConfig, MapMethod, Preset
from dracones.methods.registry import register
from dracones.training import Progress, TrainingConfig

# Values of maps learnt from together: on a CPU what stays in its cache, for each thread; elsewhere memory is the bound.
_VALUES_A_THREAD = 2**19
_VALUES_ON_ACCELERATOR = 2**25
_AT_ONCE = 16


class FastFlowConfig(MapConfig):
    """The paper's network; features are whitened by one matrix, and the heat is the exact likelihood: see `FastFlow`.

    ``fast`` trains 15 epochs at stride 8 and 16, ``balanced`` at most 60 at all three levels, ``best`` at most the
    paper's 500; rates fall to a hundredth along a cosine, and held-out images that no longer gain end the longer ones.
    ``normalisation="image", padding="zeros", heat="probability"`` is the paper's form.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"levels": (2, 3), "training": {"epochs": 15}},
        "balanced": {"training": {"epochs": 60, "patience": 10}},
        "best": {"training": {"epochs": 500, "patience": 40}},
    }

    steps: int = Field(8, ge=1, description="flow steps per level: 8 for convolutional backbones, 20 for transformers")
    kernels: Literal["3", "3-1"] = Field("3", description="all 3x3 (the paper's ResNet-18) or alternating 3x3 and 1x1")
    hidden_ratio: float = Field(1.0, gt=0, description="hidden channels per channel read; the paper: 0.16 on tokens")
    clamp: float = Field(2.0, gt=0, description="bound of the log-scale")
    heat: Literal["probability", "latent", "likelihood"] = Field(
        "likelihood", description="per position: -log p / channels, mean z^2/2, or -exp(-mean z^2/2) as in the paper"
    )
    normalisation: Literal["image", "whitening"] = Field(
        "whitening",
        description="of features: one matrix from training images, or each image's map to mean 0 and variance 1",
    )
    ridge: float = Field(0.01, gt=0, description="of normalisation=whitening, relative to the mean variance")
    padding: PaddingMode = Field(
        "reflect", description="of the convolutions at a map's border: reflect, or zeros as in the paper"
    )
    top_share: float = Field(
        0.03, gt=0, le=1, description="share of pixels that image_score=top averages; told by made defects"
    )
    images_at_once: int | None = Field(
        None, ge=1, description="images of a training batch in memory at once; none: as many as suit the processor"
    )
    training: TrainingConfig = Field(
        TrainingConfig(
            epochs=500,
            batch_size=32,
            learning_rate=1e-3,
            weight_decay=1e-5,
            optimizer="adam",
            schedule="cosine",
            final_fraction=0.01,
        ),
        description="how the flows are trained",
    )


class MapFlow(nn.Module):
    """A flow on the maps of one level: normalisation, then steps of alternating kernels. Any height and width.

    Features are first whitened by one matrix of the training images (`MapWhitening`): the flow starts as their
    Gaussian, and how far a whole image is from them is not taken out. With ``normalisation="image"`` each image's map
    is brought to mean 0 and variance 1 over all channels and positions instead. Public reproductions do so; theirs
    then learns a scale and shift for each channel *and position*, which ties the flow to one size, so here there is
    none.
    """

    def __init__(self, channels: int, config: FastFlowConfig, generator: torch.Generator) -> None:
        super().__init__()
        whitens = config.normalisation == "whitening"
        self.whitening = MapWhitening(channels, ridge=config.ridge) if whitens else None
        self.steps = Chain(*(self._step(index, channels, config, generator) for index in range(config.steps)))

    def _step(self, index: int, channels: int, config: FastFlowConfig, generator: torch.Generator) -> AllInOne:
        kernel = 1 if config.kernels == "3-1" and index % 2 else 3

        def conditioner(read: int, out: int) -> nn.Module:
            hidden = max(1, int(read * config.hidden_ratio))
            return ConvNet(read, out, hidden=hidden, kernels=(kernel, kernel), padding_mode=config.padding)

        return AllInOne(channels, conditioner, clamp=config.clamp, generator=generator)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """z `[B, C, h, w]` and log-det per position `[B, h, w]` of normalised maps."""
        return self.steps.encode_map(self._normalised(maps))

    def loss(self, maps: Tensor) -> Tensor:
        """Negative log-likelihood, nats per feature value, mean over images, constant left out."""
        z, log_det = self(maps)
        loss: Tensor = (0.5 * z.square().sum(dim=1) - log_det).mean() / z.shape[1]
        return loss

    def training_loss(self, maps: Tensor, images_at_once: int | None = None) -> Tensor:
        """As `loss`, differentiable in the parameters alone; in the memory of a few images, whatever the batch."""
        values = _VALUES_A_THREAD * torch.get_num_threads() if maps.device.type == "cpu" else _VALUES_ON_ACCELERATOR
        size = images_at_once or max(1, values // maps[0].numel())
        return mean_loss_by_parts(self.loss, list(self.parameters()), maps, size)

    def _normalised(self, maps: Tensor) -> Tensor:
        # A map has 10^5 values: sums in float32 at least, under autocast too.
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        if self.whitening is not None:
            with full_precision(maps):
                white: Tensor = self.whitening(wide)
                return white
        return nn.functional.layer_norm(wide.contiguous(), maps.shape[1:])


@register
class FastFlow(MapMethod):
    r"""Flows on 2-D feature maps; the heat of a position is how improbable its feature vector is.

    With z the latent of a level and :math:`\log|\det|` each position's share of the log-determinant, the heat map is
    the mean over levels of :math:`\frac{1}{C} (\frac12 \sum_c z_c^2 - \log|\det|)`, the negative log-density per
    channel, brought to the image's size. The paper's heat, :math:`-\exp(-\frac{1}{2C} \sum_c z_c^2)`
    (``heat="probability"``), leaves the log-determinant out and saturates; ``heat="latent"`` does not saturate.

    Deviations, each an option. The paper's code brings each image's map to mean 0 and variance 1, which takes out how
    far a whole image is from the normal ones, and leaves features near the border, where the backbone's own padding
    makes them unlike all others, the least likely; one whitening matrix has them among its directions. Convolutions pad
    by reflection: zeros tell the flow of content that is not there, and good images that it has not seen are less
    likely, most of all at the border (`benchmarks/inspection`, forms of FastFlow).

    Trained with the exact negative log-likelihood, divided by the number of feature values so that levels count
    alike. The image score is the mean of the map's top 3 % (the paper: its maximum, which hangs on one pixel); made
    defects on good images told the share (`benchmarks/inspection/top_share.py`).

    Reference:
        Yu et al. 2021, "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows",
        sections 3.2 and 3.3.

    Example:
        >>> import dracones
        >>> detector = dracones.create("fastflow", backbone="resnet18", weights="resnet18.safetensors", preset="fast")
        >>> detector.config.levels, detector.config.training.epochs
        ((2, 3), 15)
    """

    Config = FastFlowConfig
    config: FastFlowConfig
    info = MethodInfo(
        "fastflow",
        "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows",
        ("Yu", "Zheng", "Wang", "Li", "Wu", "Zhao", "Wu"),
        2021,
        "arXiv:2111.07677",
        "feature flow",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="convolutional flows on feature maps; quick, any image size at inference",
    )

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """One flow a level.

        Raises:
            ValueError: a level's map is too small to be reflected.
        """
        if self.config.padding == "reflect" and min(min(size) for size in sizes) < 2:
            raise ValueError(
                f"fastflow: padding='reflect' needs maps of 2x2 positions at least; got levels of {list(sizes)}: "
                "take larger images, finer levels or padding='zeros'"
            )
        generator = torch.Generator().manual_seed(self.config.seed)
        self.flows = nn.ModuleList(MapFlow(width, self.config, generator) for width in channels)

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Negative log-likelihood of the feature maps, nats per feature value, summed over levels (equation 6)."""
        return torch.stack(
            [
                flow.training_loss(maps, self.config.images_at_once)
                for flow, maps in zip(self._map_flows(), batch, strict=True)
            ]
        ).sum()

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """Whiten by the training images, where that is asked for, then train the flows behind."""
        for number, flow in enumerate(self._map_flows()):
            if flow.whitening is not None:
                features = self.features_of(parts.train, progress)
                flow.whitening.fit(maps[number] for maps in features.chunks(_AT_ONCE))
        yield from super().trainees(parts, progress)

    def _map_flows(self) -> list[MapFlow]:
        return [flow for flow in self.flows if isinstance(flow, MapFlow)]

    def heat(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Mean over levels of each position's improbability."""
        levels = []
        for flow, level in zip(self.flows, maps, strict=True):
            z, log_det = flow(level)
            energy = 0.5 * z.float().square().mean(dim=1)
            if self.config.heat == "probability":
                energy = -torch.exp(-energy)
            elif self.config.heat == "likelihood":
                energy = energy - log_det.float() / z.shape[1]
            levels.append(energy)
        return mean_at_size(levels, size)
