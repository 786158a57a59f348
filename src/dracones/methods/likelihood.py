"""Density × rule: learns p(image) on pixels and scores by a rule on what the density tells."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from dracones import densities, rules
from dracones.images import ImageCollection
from dracones.methods.config import MethodConfig
from dracones.methods.embedding_witness import EmbeddingWitness
from dracones.methods.info import MethodInfo
from dracones.methods.layout import Layout
from dracones.methods.learning import FitContext, Parts, Trainee
from dracones.methods.learnt import learnt
from dracones.methods.method import Method
from dracones.methods.on_features import FeatureConfig
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.rules import (
    EMBEDDING,
    LAYOUT,
    Auto,
    Further,
    codec_statistics,
    create_for,
    gather,
    replace_pixels,
    statistics_graph,
)
from dracones.training import Progress, TrainingConfig

_BATCH = 128
_JUDGED = 200
"""Held-out images on which it is seen whether anything was learnt."""
_EMBEDDING_STATE = "embedding."


class LikelihoodConfig(MethodConfig):
    """Options of every likelihood method."""

    preset: str = Field("tiny", description="size and architecture of the density; see `dracones.densities.presets`")
    density: dict[str, Any] = Field({}, description="options of the density that differ from the preset")
    rule: str = Field("auto", description="how statistics become a score; see `dracones.rules.names`")
    rule_options: dict[str, Any] = Field({}, description="options of the rule")
    backbone: str | None = Field(
        None, description="network whose embedding's likelihood is a witness of the rule auto; none by default"
    )
    weights: str | None = Field(
        None, description="of that network: 'packaged' (by pip), 'pretrained' (from the hub), or a file (.safetensors)"
    )
    members: int = Field(
        1, ge=1, description="densities learned from different seeds; the rule `waic` needs two or more"
    )
    background_noise: float = Field(
        0.2,
        gt=0,
        le=1,
        description="share of pixels replaced by noise for the background model of `likelihood_ratio`",
    )
    background_weight_decay: float = Field(0.0, ge=0, description="weight decay of the background model")
    training: TrainingConfig = Field(
        TrainingConfig(epochs=20, batch_size=64, learning_rate=1e-3, optimizer="adam", clip_norm=100.0, patience=5),
        description="how the density is trained",
    )

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """As `MethodConfig.from_options`; one of ``backbone`` and ``weights`` names the other.

        Raises:
            ValueError: unknown option or a value that does not fit.
        """
        named = {name: options[name] for name in ("backbone", "weights") if options.get(name) is not None}
        if named:
            network = FeatureConfig.from_options(**named)
            options |= {"backbone": network.backbone, "weights": network.weights}
        return super().from_options(**options)


class Likelihood(Method):
    """A density of 8-bit images and a rule on its statistics; larger score = less likely to belong.

    Plain likelihood (``rule="likelihood"``) prefers simple images to its own training images (Nalisnick et al.,
    2019); the default rule ``auto`` looks at several statistics of the density in both directions instead.

    The density learns from the training part; the rule is fitted on the held-out part, whose statistics are those
    of normal images that the density has never seen (the training part where nothing is held out).
    """

    Config = LikelihoodConfig
    density_name: ClassVar[str]
    config: LikelihoodConfig

    def __init__(self, config: MethodConfig | None = None, **options: Any) -> None:
        super().__init__(config, **options)
        densities.check_options(self.density_name, self.config.preset, self.config.density)
        rules.create(self.config.rule, **self.config.rule_options)  # unknown names are refused before any image is read

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """Make the density for ``image_shape``, the rule, and what else the rule reads."""
        self.density = self._new_density(image_shape, self.config.seed)
        embedding = self._new_embedding()
        offered = [LAYOUT, *([EMBEDDING] if embedding is not None else [])]
        self.rule = create_for(self.config.rule, self.density, further=offered, **self.config.rule_options)
        if embedding is not None and EMBEDDING not in self.rule.requires:
            raise ValueError(
                f"rule {self.config.rule!r} reads no embedding: leave out backbone and weights, or take rule=auto"
            )
        if self.rule_compares_members and self.config.members < 2:
            raise ValueError(f"rule {self.config.rule!r} compares several densities; set members to 2 or more, got 1")
        # Only what the rule reads is made, trained and saved.
        members = self.config.members if self.rule_compares_members else 1
        self.others = nn.ModuleList(self._new_density(image_shape, self.config.seed + i) for i in range(1, members))
        self.background = self._new_density(image_shape, self.config.seed) if self.rule_contrasts else None
        self.layout = Layout(image_shape) if LAYOUT in self.rule.requires else None
        self.embedding = embedding
        if self.embedding is not None:
            self.embedding.build(image_shape)

    def _new_embedding(self) -> EmbeddingWitness | None:
        if self.config.backbone is None or self.config.weights is None:
            return None
        return EmbeddingWitness(backbone=self.config.backbone, weights=self.config.weights, seed=self.config.seed)

    def _new_density(self, image_shape: tuple[int, int, int], seed: int) -> densities.Density:
        options = {"seed": seed, **self.config.density}
        return densities.create(self.density_name, self.config.preset, image_shape=image_shape, **options)

    @property
    def rule_compares_members(self) -> bool:
        """Whether the rule looks at how an ensemble of densities agrees."""
        return any(name.startswith("ensemble_") for name in self.rule.requires)

    @property
    def rule_contrasts(self) -> bool:
        """Whether the rule sets the density beside a background model."""
        return "background_log_prob" in self.rule.requires

    @property
    def further(self) -> dict[str, Further]:
        """What gives the statistics that are neither the density's nor the image's, by name."""
        found: dict[str, Further] = {}
        if self.layout is not None:
            found[LAYOUT] = self.layout
        if self.embedding is not None:
            found[EMBEDDING] = self.embedding.log_prob
        return found

    @property
    def voices(self) -> tuple[str, ...]:
        """The witnesses of the rule `auto`, in the words of a verdict; other rules are one voice."""
        rule = getattr(self, "rule", None)
        return rule.voices if isinstance(rule, Auto) else ()

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """The density, the ensemble's other members, the background model on noised images; the embedding's own."""
        data = self.training_data(parts.train, progress)
        validation = self.training_data(parts.validation, progress) if len(parts.validation) else None
        training = self.config.training
        for index, density in enumerate([self.density, *self.others]):
            yield Trainee(index, density, training, data, validation)
        if self.background is not None:
            decayed = training.model_copy(update={"weight_decay": self.config.background_weight_decay})
            yield Trainee(1 + len(self.others), self.background, decayed, data, validation, self._background_loss)
        if self.embedding is not None:
            yield from self.embedding.trainees(parts, progress)

    def _background_loss(self, background: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Bits per dimension of images with pixels replaced by noise (Ren et al., 2019, section 3.2)."""
        noised = replace_pixels(batch, rate=self.config.background_noise, generator=generator)
        return cast(densities.Density, background).training_loss(noised, generator=generator)

    def fit_statistics(self, context: FitContext) -> None:
        """Take the layout from the training images, then fit the rule on statistics of held-out normal images."""
        if self.layout is not None:
            self.layout.fit(context.train)
        images = context.held_out if len(context.held_out) else context.train
        if context.progress is not None:
            context.progress.start(len(images), "statistics of held-out normal images")
        gathered: dict[str, list[Tensor]] = {name: [] for name in self.rule.requires}
        for batch in images.batches(_BATCH):
            for name, values in self.statistics(batch.images.to(self.device)).items():
                gathered[name].append(values)
            if context.progress is not None:
                context.progress.advance(len(batch.images))
        if context.progress is not None:
            context.progress.finish()
        self.rule.fit({name: torch.cat(parts) for name, parts in gathered.items()})
        self._say_if_not_learnt(images)

    def _say_if_not_learnt(self, images: ImageCollection) -> None:
        places = np.linspace(0, len(images) - 1, min(len(images), _JUDGED)).round().astype(int)
        found = learnt(self.density, images.subset(places).to_tensor(), batch_size=_BATCH)
        if not found.passed:
            warnings.warn(
                f"this {self.info.name} has not learnt its images: {'; '.join(found.reasons)}. Train longer "
                "(training.epochs), on more images, or with another preset; until then its likelihood says nothing",
                RuntimeWarning,
                stacklevel=5,
            )

    def statistics(self, images: Tensor) -> dict[str, Tensor]:
        """The numbers ``[B]`` that the rule reads, by name; log terms in nats."""
        return self._statistics(images, self.host_statistics(images))

    def host_statistics(self, images: Tensor) -> Tensor | None:
        """Sizes ``[B, k]`` that codecs make of the images, in bits, for the rules that read them."""
        names = codec_statistics(self.rule.requires)
        if not names:
            return None
        found = gather(None, images, names)
        return torch.stack([found[name] for name in names], dim=1)

    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:
        """The rule's score ``[B]`` of images ``[B, C, H, W]`` in [0, 1]."""
        host = self.host_statistics(images) if host is None else host
        statistics = self._statistics(images, host)
        if not isinstance(self.rule, Auto):
            return Scores(self.rule(statistics).float())
        evidence = self.rule.evidence(statistics)
        return Scores(self.rule.merged(evidence).float(), evidence=torch.stack(list(evidence.values()), dim=1).float())

    def saved_state(self) -> dict[str, Tensor]:
        """The state; a frozen backbone in half precision where that loses nothing."""
        state = dict(self.state_dict())
        if self.embedding is not None:
            state |= {_EMBEDDING_STATE + name: tensor for name, tensor in self.embedding.saved_state().items()}
        return state

    def refuse_outdated(self, names: Collection[str]) -> None:
        """Refuse the rule `auto` of three witnesses by name: this one would give other scores than its threshold's."""
        if self.layout is not None and not any(name.startswith("layout.") for name in names):
            raise ValueError(
                f"its rule is the auto of before {LAYOUT!r} was one of its witnesses, and its scores and threshold are "
                "not this one's: fit it again, or score it with the version that wrote it"
            )

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Take over a saved state, that of the embedding's network included."""
        super().restore(extras, state)
        if self.embedding is not None:
            own = {name.removeprefix(_EMBEDDING_STATE): tensor for name, tensor in state.items()}
            held = self.embedding.state_dict()
            self.embedding.restore({}, {name: own[name] for name in held})

    def _statistics(self, images: Tensor, host: Tensor | None) -> dict[str, Tensor]:
        codecs = codec_statistics(self.rule.requires)
        found = statistics_graph(
            self.density,
            images,
            [name for name in self.rule.requires if name not in codecs],
            background=self.background,
            ensemble=[self.density, *self.others] if len(self.others) else (),
            further=self.further,
        )
        if host is not None:
            found |= {name: host[:, i] for i, name in enumerate(codecs)}
        return found


@register
class Glow(Likelihood):
    """Glow: actnorm, invertible 1×1 convolutions and couplings at several scales."""

    density_name = "glow"
    info = MethodInfo(
        "glow",
        "Glow: Generative Flow with Invertible 1x1 Convolutions",
        ("Kingma", "Dhariwal"),
        2018,
        "arXiv:1807.03039",
        "likelihood",
        gives=("score", "log_prob", "samples", "latents"),
        summary="exact likelihood by a multi-scale flow; affine or constant-volume couplings",
    )


@register
class RealNVP(Likelihood):
    """RealNVP: affine couplings with checkerboard and channel masks."""

    density_name = "realnvp"
    info = MethodInfo(
        "realnvp",
        "Density estimation using Real NVP",
        ("Dinh", "Sohl-Dickstein", "Bengio"),
        2017,
        "arXiv:1605.08803",
        "likelihood",
        gives=("score", "log_prob", "samples", "latents"),
        summary="exact likelihood by affine couplings; also with horizontal and cycle masks and a bottleneck",
    )


@register
class VAE(Likelihood):
    """Variational autoencoder with an importance-weighted bound."""

    density_name = "vae"
    info = MethodInfo(
        "vae",
        "Auto-Encoding Variational Bayes",
        ("Kingma", "Welling"),
        2014,
        "arXiv:1312.6114",
        "likelihood",
        gives=("score", "log_prob", "samples"),
        summary="a lower bound of the likelihood by an encoder and a decoder; likelihood regret",
    )


@register
class PixelCNN(Likelihood):
    """PixelCNN: pixel after pixel, by masked convolutions."""

    density_name = "pixelcnn"
    info = MethodInfo(
        "pixelcnn",
        "Conditional Image Generation with PixelCNN Decoders",
        ("van den Oord", "Kalchbrenner", "Vinyals", "Espeholt", "Graves", "Kavukcuoglu"),
        2016,
        "arXiv:1606.05328",
        "likelihood",
        gives=("score", "log_prob", "samples"),
        summary="exact likelihood of 8-bit images, one pixel after the other; slow to sample, quick to score",
    )
