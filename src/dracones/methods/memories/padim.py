"""PaDiM: a Gaussian of normal features at each position."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dracones.methods.heatmap import at_size, blur
from dracones.methods.info import MethodInfo
from dracones.methods.learning import FitContext
from dracones.methods.on_features import MapConfig, MapMethod, Preset
from dracones.methods.registry import register
from dracones.methods.scores import Scores
from dracones.methods.whitening import covariance_behind, left_out, whitening_matrix
from dracones.training import TrainingConfig

_POSITIONS = 256


class PaDiMConfig(MapConfig):
    """The paper's values for ResNet-18: 100 of its 448 dimensions, at stride 4."""

    presets: ClassVar[Mapping[Preset, Mapping[str, Any]]] = {
        "fast": {"levels": (2, 3), "dimensions": 60},
        "balanced": {},
        "best": {"dimensions": 200},
    }

    dimensions: int = Field(100, ge=1, description="feature dimensions kept, drawn at random")
    ridge: float = Field(0.01, gt=0, description="added to the diagonal of each covariance")
    blur_sigma: float = Field(4.0, ge=0, description="Gaussian smoothing of the heat map, pixels")


class _Sums(NamedTuple):
    """Of feature vectors at each position, about a point: how many images, sum, sum of products."""

    images: int
    total: Tensor
    products: Tensor
    about: Tensor


@register
class PaDiM(MapMethod):
    """Mahalanobis distance of each position's feature to the Gaussian of normal features there; not trained.

    Levels are brought to the finest one's size and concatenated, `dimensions` of them drawn at random. The heat map is
    the distance, smoothed; the image score the mean of its top .3 %. Images must be aligned, and of the size seen at
    fit.

    The file holds, per position, the lower triangle of the whitening matrix (the Cholesky factor of the inverse
    covariance): half of what the matrix takes.

    Deviation: where the paper adds 0.01 to the diagonal whatever the features' size, ``ridge`` is taken relative to
    the mean variance of the training features, so that scaling the features changes nothing.

    Reference:
        Defard et al. 2021, "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
        section III.
    """

    Config = PaDiMConfig
    config: PaDiMConfig
    info = MethodInfo(
        "padim",
        "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
        ("Defard", "Setkov", "Loesch", "Audigier"),
        2021,
        "arXiv:2011.08785",
        "feature memory",
        needs=("images", "backbone"),
        gives=("score", "map"),
        summary="a Gaussian per position; for aligned images",
    )
    chosen: Tensor
    mean: Tensor
    whitening: Tensor
    count: Tensor | None

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """The drawn dimensions; Gaussians to be fitted."""
        self.map_size = sizes[0]
        total = sum(channels)
        kept = min(self.config.dimensions, total)
        generator = torch.Generator().manual_seed(self.config.seed)
        self.register_buffer("chosen", torch.randperm(total, generator=generator)[:kept].sort().values)
        positions = sizes[0][0] * sizes[0][1]
        self.register_buffer("mean", torch.zeros(positions, kept))
        self.register_buffer("whitening", torch.zeros(positions, kept * (kept + 1) // 2))
        # Of the images; nothing in files of before `learn_on`.
        self.register_buffer("count", None)

    def training_config(self) -> TrainingConfig | None:
        """Nothing is trained."""
        return None

    def fit_statistics(self, context: FitContext) -> None:
        """Mean and covariance of the training images at each position, in one pass over the features."""
        found = self._gathered(context, None)
        shift = found.total / found.images
        scatter = found.products.sub_(found.images * shift[:, :, None] * shift[:, None, :])
        self._keep(found.about + shift, scatter.div_(max(found.images - 1, 1)), found.images)

    @property
    def learns_on(self) -> bool:
        """Mean, covariance and count are all that a fit keeps of its images."""
        return True

    def learn_on(self, context: FitContext) -> tuple[str, ...]:
        """Join the Gaussians of before with those of the new images: to rounding, a fit on all of them.

        Raises:
            ValueError: a file of before counts were kept.
        """
        if self.count is None:
            raise ValueError("padim: this file does not say how many images it learnt from; fit it anew on all of them")
        before = int(self.count)
        found = self._gathered(context, self.mean)
        count = before + found.images
        shift = found.total / count
        scatter = self._covariance().to(found.products).mul_(before - 1).add_(found.products)
        scatter.sub_(count * shift[:, :, None] * shift[:, None, :])
        self._keep(self.mean + shift, scatter.div_(max(count - 1, 1)), count)
        return (f"padim: the Gaussians of {count} images, of which {found.images} are new",)

    def _gathered(self, context: FitContext, about: Tensor | None) -> "_Sums":
        """Sums over the training images about a point: the first batch's mean where none is given.

        No digits are lost where features are far from zero.
        """
        count, (positions, kept) = 0, self.mean.shape
        total = torch.zeros(positions, kept, device=self.device)
        products = torch.zeros(positions, kept, kept, device=self.device)
        for maps in self.features_of(context.train, context.progress).chunks(16):
            vectors = self.vectors(tuple(level.to(self.device) for level in maps))
            about = vectors.mean(dim=1) if about is None else about
            vectors = vectors - about[:, None]
            count += vectors.shape[1]
            total += vectors.sum(dim=1)
            products.baddbmm_(vectors.transpose(1, 2), vectors)
        return _Sums(count, total, products, torch.zeros_like(total) if about is None else about)

    def _keep(self, mean: Tensor, covariance: Tensor, count: int) -> None:
        positions, kept = self.mean.shape
        variance = covariance.diagonal(dim1=1, dim2=2).mean().item()
        rows, columns = torch.tril_indices(kept, kept, device=self.device)
        for start in range(0, positions, _POSITIONS):
            part = slice(start, start + _POSITIONS)
            matrix = whitening_matrix(covariance[part], self.config.ridge, variance=variance)
            self.whitening[part] = matrix.float().to(self.device)[:, rows, columns]
        self.mean.copy_(mean)
        self.count = torch.tensor(count, device=self.device)

    def _covariance(self) -> Tensor:
        """The covariances `[P, d, d]` that the whitening was made from."""
        positions, kept = self.mean.shape
        rows, columns = torch.tril_indices(kept, kept)
        whole = torch.zeros(positions, kept, kept)
        whole[:, rows, columns] = self.whitening.cpu()
        return covariance_behind(whole, self.config.ridge)

    def vectors(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Drawn features `[P, B, d]` of each position of the finest level."""
        size = (maps[0].shape[2], maps[0].shape[3])
        joined = torch.cat([F.interpolate(level.float(), size=size, mode="nearest") for level in maps], dim=1)
        return joined[:, self.chosen].flatten(2).permute(2, 0, 1)

    def heat(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Smoothed Mahalanobis distances `[B, H, W]`.

        Raises:
            ValueError: the images are of another size than at fit.
        """
        shape = (maps[0].shape[2], maps[0].shape[3])
        if shape != self.map_size:
            raise ValueError(
                f"PaDiM knows positions of a {self.map_size[0]}x{self.map_size[1]} map, and these images give "
                f"{shape[0]}x{shape[1]}; score images of the size seen at fit"
            )
        return self._smoothed(self._distances_of(maps), size)

    def score_as_unseen(self, maps: tuple[Tensor, ...], size: tuple[int, int]) -> Scores | None:
        """By the Gaussians of the other images at each position (`left_out`)."""
        if self.count is None:
            return None
        squares = left_out(self._distances_of(maps).double().square(), int(self.count))
        return self.scores_of(self._smoothed(squares.sqrt().float(), size), size)

    def _distances_of(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Mahalanobis distances `[P, B]` of each position."""
        with self.full_precision():
            return self._distances(self.vectors(maps) - self.mean[:, None])

    def _smoothed(self, distances: Tensor, size: tuple[int, int]) -> Tensor:
        with self.full_precision():
            return blur(at_size(distances.T.reshape(-1, *self.map_size), size), self.config.blur_sigma)

    def _distances(self, vectors: Tensor) -> Tensor:
        """Lengths `[P, B]` of whitened vectors `[P, B, d]`."""
        kept = self.mean.shape[1]
        rows, columns = torch.tril_indices(kept, kept, device=vectors.device)
        distances = []
        whole = torch.zeros(min(_POSITIONS, len(vectors)), kept, kept, device=vectors.device)
        for start in range(0, len(vectors), _POSITIONS):
            part = slice(start, start + _POSITIONS)
            packed = self.whitening[part]
            whole[: len(packed), rows, columns] = packed
            whitened = torch.bmm(vectors[part], whole[: len(packed)].transpose(1, 2))
            distances.append(torch.linalg.vector_norm(whitened, dim=2))
        return torch.cat(distances)
