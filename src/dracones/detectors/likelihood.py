"""Density × rule: a detector that learns p(image) on pixels and scores by a rule on what the density tells."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dracones import densities
from dracones.detectors.config import DetectorConfig
from dracones.detectors.detector import Detector, FitContext
from dracones.detectors.info import MethodInfo
from dracones.detectors.prediction import Scores
from dracones.detectors.registry import register
from dracones.rules import create_for, gather
from dracones.training import TrainingConfig

_BATCH = 128


class LikelihoodConfig(DetectorConfig):
    """Options of every likelihood detector."""

    preset: str = Field("tiny", description="size and architecture of the density; see `dracones.densities.presets`")
    density: dict[str, Any] = Field({}, description="options of the density that differ from the preset")
    rule: str = Field("auto", description="how statistics become a score; see `dracones.rules.names`")
    rule_options: dict[str, Any] = Field({}, description="options of the rule")
    training: TrainingConfig = Field(
        TrainingConfig(epochs=20, batch_size=64, learning_rate=1e-3, optimizer="adam", clip_norm=100.0, patience=5),
        description="how the density is trained",
    )


class LikelihoodDetector(Detector):
    """A density of 8-bit images and a rule on its statistics; larger score = less likely to belong.

    Plain likelihood (``rule="likelihood"``) prefers simple images to its own training images (Nalisnick et al.,
    2019); the default rule ``auto`` looks at several statistics of the density in both directions instead.

    The density learns from the training part; the rule is fitted on the held-out part, whose statistics are those
    of normal images that the density has never seen (the training part where nothing is held out).
    """

    Config = LikelihoodConfig
    density_name: ClassVar[str]
    config: LikelihoodConfig

    def build(self, image_shape: tuple[int, int, int]) -> None:
        """Make the density for ``image_shape`` and the rule."""
        self.density = densities.create(
            self.density_name, self.config.preset, image_shape=image_shape, **self.config.density
        )
        self.rule = create_for(self.config.rule, self.density, **self.config.rule_options)

    def training_loss(self, batch: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean bits per dimension of a batch ``[B, C, H, W]``."""
        return self.density.training_loss(batch, generator=generator)

    def fit_statistics(self, context: FitContext) -> None:
        """Fit the rule on statistics of held-out normal images."""
        images = context.held_out if len(context.held_out) else context.train
        gathered: dict[str, list[Tensor]] = {name: [] for name in self.rule.requires}
        for batch in images.batches(_BATCH):
            for name, values in self.statistics(batch.images.to(self.device)).items():
                gathered[name].append(values)
        self.rule.fit({name: torch.cat(parts) for name, parts in gathered.items()})

    def statistics(self, images: Tensor) -> dict[str, Tensor]:
        """The numbers ``[B]`` that the rule reads, by name; log terms in nats."""
        return gather(self.density, images, self.rule.requires)

    def score(self, images: Tensor) -> Scores:
        """The rule's score ``[B]`` of images ``[B, C, H, W]`` in [0, 1]."""
        return Scores(self.rule.score(self.statistics(images)))


@register
class Glow(LikelihoodDetector):
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
class RealNVP(LikelihoodDetector):
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
class VAE(LikelihoodDetector):
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
class PixelCNN(LikelihoodDetector):
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
