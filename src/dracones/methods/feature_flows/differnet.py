"""DifferNet: a flow on what a backbone sees of the whole image at three sizes, averaged over rotations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from dracones.features import FeatureDataset, ImagePyramid, RotatedEmbedding, rotated
from dracones.features.scaled import Shrinking
from dracones.flows import MLP, ActNorm, AffineCoupling, AtanScale, Chain, Permutation, channels
from dracones.flows.bijection import Bijection
from dracones.images import ImageCollection
from dracones.methods.feature_flows.whitening import Whitening
from dracones.methods.heatmap import blur
from dracones.methods.info import MethodInfo
from dracones.methods.learning import Parts, Trainee
from dracones.methods.on_features import FeatureConfig, FeatureMethod, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.training import Progress, TrainingConfig

# From a higher rate down to a hundredth of it, at most the paper's number of steps over so many rotations.
_CONVERGED: dict[str, Any] = {
    "epochs": 24,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "final_fraction": 0.01,
    "validate_start": True,
    "patience": 6,
}


class DifferNetConfig(FeatureConfig):
    """The paper's values, AlexNet and 448 pixels among them, except for the presets' rotations and training.

    ``fast``: ResNet-18, 256 pixels, narrow networks. ``balanced``: narrower networks than the paper's 2,048 wide ones,
    16 rotations. Both train from five times the paper's rate down along a cosine, and stop where held-out images gain
    no more. ``best``: the paper's.
    """

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {
            "backbone": "resnet18",
            "levels": (3,),
            "size": (256, 256),
            "hidden": 256,
            "training_rotations": 8,
            "rotations": 8,
            "map_rotations": 0,
            "training": _CONVERGED,
        },
        "balanced": {
            "hidden": 512,
            "training_rotations": 16,
            "rotations": 16,
            "map_rotations": 8,
            "training": _CONVERGED,
        },
        "best": {},
    }

    backbone: str = Field("alexnet", description="timm name, or torchvision's where timm has none")
    levels: tuple[int, ...] | None = Field((-1,), min_length=1, max_length=1, description="the level that is averaged")
    size: tuple[int, int] | None = Field((448, 448), description="height, width of the largest of the scales")
    scales: int = Field(3, ge=1, description="image sizes, each half the one before")
    pyramid: Shrinking = Field(
        "bilinear", description="how images are shrunk: bilinear (antialiased), or nearest as in the paper's code"
    )
    blocks: int = Field(8, ge=1, description="coupling blocks")
    hidden: int = Field(2048, ge=1, description="width of the s,t-networks, which have three hidden layers")
    clamp: float = Field(3.0, gt=0, description="bound of the log-scale")
    scaling: Literal["actnorm", "whitening"] = Field(
        "actnorm", description="before the flow: a scale for each feature, or the training images' whole covariance"
    )
    ridge: float = Field(0.01, gt=0, description="of the whitening, relative to the mean variance")
    training_rotations: int = Field(64, ge=1, description="rotations of each training image that are learnt from")
    rotations: int = Field(64, ge=1, description="rotations that a score is averaged over")
    map_rotations: int = Field(64, ge=0, description="rotations that a heat map is averaged over; 0: no heat map")
    blur_sigma: float = Field(3.0, ge=0, description="Gaussian smoothing of the gradient, pixels")
    training: TrainingConfig = Field(
        TrainingConfig(
            epochs=12,
            batch_size=96,
            learning_rate=2e-4,
            betas=(0.8, 0.8),
            epsilon=1e-4,
            weight_decay=1e-5,
            optimizer="adam",
        ),
        description="how the flow is trained; batch_size counts rotated images, an epoch sees every rotation",
    )


class RotatedVectors(Dataset[Tensor]):
    """Embeddings `[D]` of every rotation of every image, as separate items."""

    def __init__(self, features: FeatureDataset, rotations: int) -> None:
        self.features = features
        self.rotations = rotations

    def __len__(self) -> int:
        return len(self.features) * self.rotations

    def __getitem__(self, index: int) -> Tensor:
        return self.batch(torch.tensor([index]))[0]

    def fingerprint(self) -> str:
        """Name of the content."""
        return f"{self.features.fingerprint()}/{self.rotations}"

    def batch(self, indices: Tensor) -> Tensor:
        """Embeddings `[B, D]`."""
        (rows,) = self.features.batch(indices // self.rotations)
        turns = rows.view(len(rows), self.rotations, -1)
        return turns[torch.arange(len(rows)), indices % self.rotations]


@register
class DifferNet(FeatureMethod):
    r"""A fully connected flow on globally averaged features of three image sizes.

    The score is :math:`z^2` averaged over dimensions and rotations; the heat map is how strongly the likelihood pulls
    at each pixel: the gradient of :math:`\frac12 \|z\|^2 - \log|\det|` at the image, turned back, smoothed, its
    magnitude averaged over channels and rotations, squared.

    Deviations. The paper draws four fresh rotations of each image in each of 192 epochs; here the
    ``training_rotations`` evenly spaced ones are seen by the frozen backbone once: an epoch over 64 of them is 16 of
    the paper's, and 12 such epochs are its 192. Scores take ``rotations`` of the same angles (so it must divide
    ``training_rotations``): the black corners of an angle never learnt from look like an anomaly of every image.
    Where parts lie one way or are square to the image, quarter turns (``training_rotations=4, rotations=4``) say more
    than many angles: they leave no corners. Turned images are interpolated bilinearly (the code: nearest); smaller ones
    are antialiased (``pyramid="nearest"`` is the code's, which keeps every second pixel and aliases). An ActNorm comes
    first, because features of other backbones than AlexNet differ in scale by orders of magnitude; with
    ``scaling="whitening"`` it is the inverse of the training embeddings' covariance, and the flow starts as the
    Mahalanobis distance: for few images. The backbone is in eval mode; the code leaves it in train mode.

    Reference:
        Rudolph, Wandt, Rosenhahn 2021, "Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing
        Flows", sections 3 and 4.
    """

    Config = DifferNetConfig
    config: DifferNetConfig
    info = MethodInfo(
        "differnet",
        "Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows",
        ("Rudolph", "Wandt", "Rosenhahn"),
        2021,
        "arXiv:2008.12577",
        "feature flow",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="one flow on the whole image's features at three sizes, averaged over rotations",
    )

    def make_extractor(self, channels: int) -> ImagePyramid:
        """The backbone at several image sizes."""
        return ImagePyramid(self.make_backbone(channels), self.config.scales, self.config.pyramid)

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:  # noqa: ARG002
        """The flow on all scales' channels together.

        Raises:
            ValueError: the rotations scored are not among those learnt from.
        """
        if self.config.training_rotations % self.config.rotations:
            raise ValueError(
                f"rotations={self.config.rotations} does not divide training_rotations="
                f"{self.config.training_rotations}: angles would be scored that were never learnt from"
            )
        self.flow = differnet_flow(sum(channels), self.config)

    def embedded(self, angles: Sequence[float]) -> RotatedEmbedding:
        """The image's embedding at each angle."""
        return RotatedEmbedding(cast(ImagePyramid, self.extractor), angles)

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """Where asked for, whiten by the training images' rotations; then train the flow behind."""
        first = self.flow.layers[0]
        if isinstance(first, Whitening):
            rows = torch.cat([rows for (rows,) in self.turns_of(parts.train, progress).chunks(256)])
            first.fit(rows.view(-1, len(first.mean)).to(self.device))
        yield from super().trainees(parts, progress)

    def training_data(self, images: ImageCollection, progress: Progress | None = None) -> Dataset[Any]:
        """Embeddings of the rotated images, computed once."""
        return RotatedVectors(self.turns_of(images, progress), self.config.training_rotations)

    def turns_of(self, images: ImageCollection, progress: Progress | None = None) -> FeatureDataset:
        """Embeddings `[R D]` of each image's R rotations."""
        angles = even_angles(self.config.training_rotations)
        return self.features_of(images, progress, extractor=self.embedded(angles))

    def training_loss(self, batch: Tensor, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Negative log-likelihood per dimension, constant left out (equation 4)."""
        return self.energy(batch).mean() / batch.shape[1]

    def energy(self, vectors: Tensor) -> Tensor:
        """`z^2 / 2 - log|det|` of embeddings `[B, D]`, nats: the negative log-likelihood up to its constant."""
        z, log_det = self.flow.encode(vectors)
        return 0.5 * z.float().square().sum(dim=1) - log_det

    @property
    def gives_maps(self) -> bool:
        """Where rotations for a map are set."""
        return self.config.map_rotations > 0

    def forward(self, images: Tensor, host: Tensor | None = None) -> Scores:  # noqa: ARG002
        """Mean z² `[B]` over rotations, and the gradient's heat map `[B, H, W]`."""
        with self.scoring_precision():
            (turns,) = self.embedded(even_angles(self.config.rotations))(images)
            vectors = turns.view(-1, turns.shape[1] // self.config.rotations)
            z, _ = self.flow.encode(vectors)
        scores = z.float().square().mean(dim=1).view(-1, self.config.rotations).mean(dim=1)
        return Scores(scores, self._gradient_map(images) if self.config.map_rotations else None)

    def _gradient_map(self, images: Tensor) -> Tensor:
        total = torch.zeros_like(images[:, 0])
        embedded = self.embedded(())
        for angle in even_angles(self.config.map_rotations):
            turned = rotated(images, angle).detach().requires_grad_()
            with torch.enable_grad(), self.scoring_precision():
                energy = self.energy(embedded.embedding(turned)).sum()
            (gradient,) = torch.autograd.grad(energy, turned)
            back = rotated(gradient, -angle).float()
            smooth = blur(back.flatten(0, 1), self.config.blur_sigma).view(back.shape)
            total += smooth.abs().mean(dim=1)
        return (total / self.config.map_rotations).square()


def even_angles(count: int) -> list[float]:
    """`count` rotations of the full circle, degrees, the first the image as it is."""
    return [360 * index / count for index in range(count)]


def differnet_flow(dims: int, config: DifferNetConfig) -> Chain:
    """Scaling, then blocks of a fixed permutation and a coupling in both directions (Glow's, as FrEIA has it)."""
    generator = torch.Generator().manual_seed(config.seed)
    first = channels(dims)

    def network(read: int, out: int) -> nn.Module:
        return MLP(read, out, hidden=config.hidden, layers=3)

    whitens = config.scaling == "whitening"
    layers: list[Bijection] = [Whitening(dims, ridge=config.ridge) if whitens else ActNorm(dims)]
    for _ in range(config.blocks):
        layers.append(Permutation.random(dims, generator))
        for reads in (~first, first):
            layers.append(AffineCoupling(reads, network, scale=AtanScale(config.clamp), shift_first=False))
    return Chain(*layers)
