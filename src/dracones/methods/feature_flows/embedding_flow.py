"""Embedding flow: a RealNVP on the pooled features of a frozen backbone."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dracones.features import (
    EnlargedExtractor,
    Extractor,
    FeatureExtractor,
    ImagePyramid,
    Statistic,
    StatisticPool,
    pooled_statistics,
)
from dracones.flows import MLP, AffineCoupling, Chain, Flow, StandardNormal, TanhScale, channels
from dracones.flows.bijection import Bijection
from dracones.images import ImageCollection
from dracones.methods.feature_flows.whitening import Whitening
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext, Parts, Trainee
from dracones.methods.on_features import FeatureConfig, FeatureMethod, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.methods.whitening import left_out
from dracones.training import Progress, TrainingConfig


class EmbeddingFlowConfig(FeatureConfig):
    """Eight couplings of one hidden layer, as in the paper's tabular flows; it does not state those of section 8.

    ``fast`` trains at most 30 epochs, ``balanced`` 100, ``best`` 300. Rates fall along a cosine; training ends where
    held-out images gain no more, and with the Gaussian that it began with where they never do.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"training": {"epochs": 30}},
        "balanced": {"training": {"epochs": 100}},
        "best": {"training": {"epochs": 300}},
    }

    levels: tuple[int, ...] | None = Field((-1,), description="levels whose maps are pooled and joined")
    pooling: tuple[Literal["mean", "max", "std"], ...] = Field(
        ("mean",), min_length=1, description="what is kept of a map's channels: mean as in the paper; max and std too"
    )
    scales: int = Field(1, ge=1, description="image sizes that are embedded, each half the one before; one level then")
    ridge: float = Field(0.01, gt=0, description="of the whitening, relative to the mean variance")
    couplings: int = Field(
        8, ge=0, description="couplings, reading the halves in turn; 0: nothing is trained, the Gaussian alone"
    )
    hidden: int = Field(256, ge=1, description="width of the s,t-networks")
    layers: int = Field(1, ge=1, description="hidden layers of the s,t-networks")
    dropout: float = Field(0.0, ge=0, lt=1, description="between hidden layers, from two layers on")
    training: TrainingConfig = Field(
        TrainingConfig(
            epochs=100,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=5e-5,
            optimizer="adamw",
            schedule="cosine",
            final_fraction=0.01,
            validate_start=True,
            patience=10,
        ),
        description="how the flow is trained",
    )


@register
class EmbeddingFlow(FeatureMethod):
    """The exact negative log-likelihood of an image's embedding, nats per dimension; says whether, not where.

    On pixels a flow learns local correlations and calls unfamiliar content likely; on the embeddings of a network that
    knows content its likelihood tells in from out (the paper's section 8). The flow is RealNVP with half masks and
    multilayer perceptrons.

    Deviations: embeddings are whitened by the training images' covariance where the paper z-scores its tabular data,
    so the flow starts as their Gaussian (the Mahalanobis distance) and learns what is not Gaussian; ``couplings=0``
    stays there, which is better where images are fewer than dimensions: a likelihood that training raises then tells
    less (measured in `benchmarks/inspection`). ``scales`` embeds the image at several sizes, as DifferNet does.

    Reference:
        Kirichenko, Izmailov, Wilson 2020, "Why Normalizing Flows Fail to Detect Out-of-Distribution Data", section 8;
        Dinh, Sohl-Dickstein, Bengio 2017.
    """

    Config = EmbeddingFlowConfig
    config: EmbeddingFlowConfig
    info = MethodInfo(
        "embedding_flow",
        "Why Normalizing Flows Fail to Detect Out-of-Distribution Data",
        ("Kirichenko", "Izmailov", "Wilson"),
        2020,
        "arXiv:2006.08545",
        "feature flow",
        needs=("images", "backbone"),
        gives=("score", "log_prob"),
        summary="a flow on pooled features: one likelihood for the whole image",
    )

    count: Tensor | None

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:  # noqa: ARG002
        """The flow on all pooled channels together."""
        # Of the images; nothing in files of before `learn_on`.
        self.register_buffer("count", None)
        self.dims = sum(channels) * len(self.config.pooling)
        self.whitening = Whitening(self.dims, ridge=self.config.ridge)
        self.flow = Flow(_real_nvp(self.dims, self.config), StandardNormal())

    def make_extractor(self, channels: int) -> FeatureExtractor | ImagePyramid | EnlargedExtractor:
        """The backbone, at one or several image sizes."""
        backbone = self.make_backbone(channels)
        return backbone if self.config.scales == 1 else ImagePyramid(backbone, self.config.scales)

    def training_config(self) -> TrainingConfig | None:
        """None for the Gaussian alone."""
        return super().training_config() if self.config.couplings else None

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """Whiten by the training images, then train the flow behind."""
        embeddings = self._embeddings(parts.train, progress)
        self.whitening.fit(embeddings)
        self.count = torch.tensor(len(embeddings), device=self.device)
        yield from super().trainees(parts, progress)

    @property
    def learns_on(self) -> bool:
        """The Gaussian alone does, without couplings: mean, covariance and count are all that it keeps."""
        return not self.config.couplings

    def learn_on(self, context: FitContext) -> tuple[str, ...]:
        """Join the Gaussian of before with that of the new images: to rounding, a fit on all of them.

        Raises:
            TypeError: there are couplings, which would forget.
            ValueError: a file of before counts were kept.
        """
        if not self.learns_on:
            return super().learn_on(context)
        if self.count is None:
            raise ValueError(
                "embedding_flow: this file does not say how many images it learnt from; fit it anew on all of them"
            )
        embeddings, before = self._embeddings(context.train, context.progress), int(self.count)
        self.whitening.learn_on(embeddings, before)
        self.count = self.count + len(embeddings)
        return (f"embedding_flow: the Gaussian of {int(self.count)} images, of which {len(embeddings)} are new",)

    def _embeddings(self, images: ImageCollection, progress: Progress | None) -> Tensor:
        return torch.cat([rows for (rows,) in self.features_of(images, progress).chunks(256)]).to(self.device)

    def pool(self) -> StatisticPool:
        """What turns images into embeddings."""
        statistics: tuple[Statistic, ...] = self.config.pooling
        return StatisticPool(self.extractor, statistics)

    def cached_network(self) -> Extractor:
        """Embeddings, and not maps, are what the cache keeps."""
        return self.pool()

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Negative log-likelihood, nats per dimension."""
        return -self.log_density(batch[0]).mean() / self.dims

    def log_density(self, embeddings: Tensor) -> Tensor:
        """Log-density of embeddings `[B, D]`, nats, `[B]`."""
        white, log_det = self.whitening.encode(embeddings)
        return self.flow.log_prob(white) + log_det

    def log_prob(self, images: Tensor) -> Tensor:
        """Log-likelihood of the images' embeddings, nats, `[B]`."""
        with self.scoring_precision():
            maps = self.extractor(images)
        return self.log_density(pooled_statistics(maps, self.config.pooling))

    def score_maps(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores:  # noqa: ARG002
        """Negative log-likelihood per dimension `[B]`."""
        with self.full_precision():
            return Scores(-self.log_density(pooled_statistics(maps, self.config.pooling)) / self.dims)

    def score_as_unseen(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores | None:
        """By the Gaussian of the other images, whose volume is taken to be that of all (`left_out`)."""
        if not self.learns_on or self.count is None:
            return None
        seen = self.score_maps(maps, size).image
        with self.full_precision():
            white, _ = self.whitening.encode(pooled_statistics(maps, self.config.pooling))
            square = white.double().square().sum(dim=1)
            further = left_out(square, int(self.count)) - square
        return Scores(seen + (0.5 * further / self.dims).to(seen))


def _real_nvp(dims: int, config: EmbeddingFlowConfig) -> Chain:
    def network(read: int, out: int) -> nn.Module:
        return MLP(read, out, hidden=config.hidden, layers=config.layers, dropout=config.dropout)

    generator = torch.Generator().manual_seed(config.seed)
    layers: list[Bijection] = []
    # The halves are drawn once, so that both hold channels of every level and statistic.
    order = torch.randperm(dims, generator=generator)
    first = channels(dims)[order]
    for index in range(config.couplings):
        reads = first if index % 2 == 0 else ~first
        layers.append(AffineCoupling(reads, network, scale=TanhScale(int((~reads).sum()))))
    return Chain(*layers)
