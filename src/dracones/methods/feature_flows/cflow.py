"""CFLOW-AD: a conditional flow on the feature vector of each position, told where it is."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from dracones.features import SinusoidalPosition
from dracones.flows import AllInOne, Chain, ContextConditioner, ZeroLinear
from dracones.images import ImageCollection
from dracones.methods.feature_flows.highest import highest_by_level
from dracones.methods.feature_flows.vectors import FeatureVectors
from dracones.methods.heatmap import at_size
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext
from dracones.methods.on_features import MapConfig, MapMethod, Preset
from dracones.methods.registry import register
from dracones.training import Progress, TrainingConfig

_LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


class CFlowConfig(MapConfig):
    """The paper's values, but for batches: see `CFlow`. ``best`` trains at most the paper's 200 epochs."""

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"levels": (2, 3), "training": {"epochs": 12}},
        "balanced": {"training": {"epochs": 25, "patience": 6}},
        "best": {"training": {"epochs": 200, "patience": 30}, "mixing": "rotation"},
    }

    steps: int = Field(8, ge=1, description="coupling steps of each level's flow")
    position_dims: int = Field(128, ge=4, multiple_of=4, description="dimensions of the positional condition")
    clamp: float = Field(1.9, gt=0, description="bound of the log-scale")
    mixing: Literal["permutation", "rotation"] = Field(
        "permutation", description="of channels between steps; the paper's code has random rotations, dense matrices"
    )
    heat: Literal["probability", "likelihood"] = Field(
        "probability",
        description="per level and position: 1 - p as in the paper, or max l - l, which does not saturate",
    )
    chunks: int = Field(64, ge=1, description="each image's positions are dealt to so many training items")
    training: TrainingConfig = Field(
        TrainingConfig(
            epochs=200,
            batch_size=32,
            learning_rate=2e-3,
            optimizer="adam",
            schedule="cosine",
            final_fraction=1e-3,
            warmup=0.08,
            warmup_start=0.1,
        ),
        description="how the flows are trained; batch_size counts chunks",
    )


class PositionedMLP(ContextConditioner):
    """Linear-ReLU-Linear on a vector and the code of its position, the same at every position of a map.

    The first layer has the two parts of its matrix apart. Where all images share the codes (a batch of 1), a code's
    part is computed once and not once an image: the same numbers as joining vector and code, for less arithmetic.
    """

    def __init__(self, in_features: int, out_features: int, *, hidden: int, context_features: int) -> None:
        super().__init__()
        self.vector = nn.Linear(in_features - context_features, hidden)
        self.position = nn.Linear(context_features, hidden, bias=False)
        self.last = ZeroLinear(hidden, out_features)

    def forward(self, seen: Tensor, context: Tensor) -> Tensor:
        """Vectors `[N, C]` or maps `[B, C, h, w]`, and codes `[.., D]` or `[.., D, h, w]`, to as many outputs."""
        hidden = self.vector(seen.movedim(1, -1)) + self.position(context.movedim(1, -1))
        out: Tensor = self.last(hidden.relu_())
        return out.movedim(-1, 1)


class VectorFlow(nn.Module):
    """The conditional flow of one level: `log_prob` of vectors given their positions."""

    def __init__(self, channels: int, config: CFlowConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.channels = channels

        def conditioner(inputs: int, out: int) -> nn.Module:
            # Twice the width of what it reads, code included, as in the paper's code.
            return PositionedMLP(inputs, out, hidden=2 * inputs, context_features=config.position_dims)

        self.steps = Chain(
            *(
                AllInOne(
                    channels,
                    conditioner,
                    clamp=config.clamp,
                    mixing=config.mixing,
                    context_features=config.position_dims,
                    generator=generator,
                )
                for _ in range(config.steps)
            )
        )

    def forward(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """z and log-det of vectors `[N, C]` given codes `[N, D]`; or of maps `[B, C, h, w]` given `[1, D, h, w]`."""
        return self.steps.encode_map(vectors, codes)

    def log_prob(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """log p of each vector given its position, nats per channel, `[N]` or `[B, h, w]`."""
        z, log_det = self(vectors, codes)
        log_prob: Tensor = (log_det - 0.5 * z.square().sum(dim=1)) / self.channels - _LOG_SQRT_2_PI
        return log_prob


@register
class CFlow(MapMethod):
    r"""A flow per level on single feature vectors, conditioned on a sinusoidal code of their position.

    With :math:`\ell` the log-density of a vector per channel, :math:`p = \exp(\ell - \max \ell)` is at most 1; the heat
    map is :math:`\sum_l (1 - p_l)` at the image's size (equation 8 up to a constant), the image score the mean of its
    top .3 % (the paper: its maximum, one pixel). ``heat="likelihood"`` sums :math:`\max \ell - \ell` instead, the
    log-density itself: it does not come close to its bound on everything that is less likely than a plain background,
    but a single unlikely position outweighs the other levels (on screws it tells less). The loss is the paper's code's,
    :math:`-\log \sigma(\ell)`.

    Deviations, each with its reason. The paper takes :math:`\max \ell` over the *test* set, which makes a score depend
    on other test images: here it is the maximum over the training images, kept in a buffer. The paper's code steps
    256 vectors of one batch of 32 images at a time, with Adam at 2e-4; here the positions of all images are shuffled
    into chunks and a step sees a few hundred vectors of each level, of many images, with Adam at 2e-3 and the same
    schedule (linear warm-up, cosine) in one run; number of chunks and rate are those of the best held-out likelihood
    of normal images at equal CPU time. Channels are mixed by permutations; ``mixing="rotation"``
    gives the code's dense rotations. Levels are strides 4 to 16, whose weights small files hold; the paper's are
    strides 8 to 32 (``levels=(2, 3, 4)``).

    Reference:
        Gudovskiy, Ishizaka, Kozuka 2022, "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via
        Conditional Normalizing Flows", sections 4 and 5.
    """

    Config = CFlowConfig
    config: CFlowConfig
    info = MethodInfo(
        "cflow",
        "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization via Conditional Normalizing Flows",
        ("Gudovskiy", "Ishizaka", "Kozuka"),
        2022,
        "arXiv:2107.12571",
        "feature flow",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="conditional flows on single feature vectors and their positions; sharp maps",
    )
    highest: Tensor

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:  # noqa: ARG002
        """One flow a level, and the highest log-density each has seen."""
        generator = torch.Generator().manual_seed(self.config.seed)
        self.flows = nn.ModuleList(VectorFlow(width, self.config, generator) for width in channels)
        self.position = SinusoidalPosition(self.config.position_dims)
        self.register_buffer("highest", torch.zeros(len(channels)))

    def training_data(self, images: ImageCollection, progress: Progress | None = None) -> Dataset[Any]:
        """Vectors of all images, dealt into chunks."""
        return FeatureVectors(self.features_of(images, progress), self.config.chunks, self.config.seed)

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """-log sigmoid of the log-density per channel, mean over vectors, summed over levels."""
        losses = []
        for flow, (vectors, rows, size) in zip(self._vector_flows(), batch, strict=True):
            codes: Tensor = self.position(*size)
            log_prob = flow.log_prob(vectors, codes.flatten(1).T[rows])
            losses.append(-nn.functional.logsigmoid(log_prob).mean())
        return torch.stack(losses).sum()

    def fit_statistics(self, context: FitContext) -> None:
        """The highest log-density of each level over the training images."""
        self.highest.copy_(highest_by_level(self, context, self.log_probs))

    def log_probs(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """Log-density per channel `[B, h_l, w_l]` of every position of every level."""
        return [
            flow.log_prob(level.contiguous(memory_format=torch.channels_last), self._codes(level))
            for flow, level in zip(self._vector_flows(), maps, strict=True)
        ]

    def _vector_flows(self) -> list[VectorFlow]:
        return [flow for flow in self.flows if isinstance(flow, VectorFlow)]

    def heat(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Sum over levels of 1 - p, or of the log-density's distance from its highest."""
        deficits = [top - level for level, top in zip(self.log_probs(maps), self.highest, strict=True)]
        if self.config.heat == "probability":
            deficits = [1 - torch.exp(-deficit) for deficit in deficits]
        return torch.stack([at_size(level, size, align_corners=True) for level in deficits]).sum(dim=0)

    def _codes(self, maps: Tensor) -> Tensor:
        codes: Tensor = self.position(maps.shape[2], maps.shape[3])
        return codes[None]
