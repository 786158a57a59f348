"""Guards that read penultimate features: Mahalanobis, relative Mahalanobis, nearest neighbours, ViM, residual."""

from typing import ClassVar

from pydantic import Field

from dracones.methods.guards import gaussian, neighbours, subspace
from dracones.methods.guards.guard import Guard, GuardConfig
from dracones.methods.guards.post_hoc import PostHocScore
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register


class GaussianConfig(GuardConfig):
    """Options of both Mahalanobis distances."""

    ridge: float = Field(1e-6, ge=0, description="added to the covariance's diagonal, as a share of its mean variance")


@register
class Mahalanobis(Guard):
    """`gaussian.Mahalanobis`: squared distance to the nearest class mean."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mahalanobis",
        title="A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
        authors=("Lee", "Lee", "Lee", "Shin"),
        year=2018,
        url="https://arxiv.org/abs/1807.03888",
        family="classifier",
        needs=("images", "labels", "classifier"),
        summary="Mahalanobis distance of the features to the nearest class mean",
    )
    Config = GaussianConfig
    config: GaussianConfig

    def make_score(self) -> PostHocScore:
        """The formula."""
        return gaussian.Mahalanobis(ridge=self.config.ridge)


@register
class RelativeMahalanobis(Guard):
    """`gaussian.RelativeMahalanobis`: distance to the nearest class less the distance to all."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="relative_mahalanobis",
        title="A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
        authors=("Ren", "Fort", "Liu", "Roy", "Padhy", "Lakshminarayanan"),
        year=2021,
        url="https://arxiv.org/abs/2106.09022",
        family="classifier",
        needs=("images", "labels", "classifier"),
        summary="Mahalanobis distance to the nearest class minus that to all training features",
    )
    Config = GaussianConfig
    config: GaussianConfig

    def make_score(self) -> PostHocScore:
        """The formula."""
        return gaussian.RelativeMahalanobis(ridge=self.config.ridge)


@register
class Knn(Guard):
    """`neighbours.NearestNeighbours`: distance to the k-th nearest training feature."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="knn",
        title="Out-of-Distribution Detection with Deep Nearest Neighbors",
        authors=("Sun", "Ming", "Zhu", "Li"),
        year=2022,
        url="https://arxiv.org/abs/2204.06507",
        family="classifier",
        needs=("images", "classifier"),
        summary="distance to the k-th nearest training feature, exact search",
    )

    class Config(GuardConfig):
        """Options of KNN."""

        k: int = Field(50, ge=1, description="which neighbour; 50 on CIFAR-10, 1000 on ImageNet in the paper")
        normalize: bool = Field(True, description="scale features to length 1")
        share: float = Field(1.0, gt=0, le=1, description="share of the training features that is kept")

    config: Config

    def make_score(self) -> PostHocScore:
        """The formula."""
        options = self.config
        return neighbours.NearestNeighbours(
            k=options.k, normalize=options.normalize, share=options.share, seed=options.seed
        )


class SubspaceConfig(GuardConfig):
    """Options of ViM and the residual."""

    dimensions: int | None = Field(
        None, ge=1, description="D of the principal subspace; by the number of features as in the paper if none"
    )


_VIM = MethodInfo(
    name="vim",
    title="ViM: Out-Of-Distribution with Virtual-logit Matching",
    authors=("Wang", "Li", "Feng", "Zhang"),
    year=2022,
    url="https://arxiv.org/abs/2203.10807",
    family="classifier",
    needs=("images", "classifier"),
    summary="length outside the training features' principal subspace, as a virtual logit against the energy",
)


@register
class Vim(Guard):
    """`subspace.VirtualLogit`: the residual as one more logit."""

    info: ClassVar[MethodInfo] = _VIM
    Config = SubspaceConfig
    config: SubspaceConfig

    def make_score(self) -> PostHocScore:
        """The formula."""
        return subspace.VirtualLogit(dimensions=self.config.dimensions)


@register
class Residual(Guard):
    """`subspace.Residual`: what of a feature lies outside the training features' subspace."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="residual",
        title=_VIM.title,
        authors=_VIM.authors,
        year=_VIM.year,
        url=_VIM.url,
        family="classifier",
        needs=("images", "classifier"),
        summary="length of the feature outside the training features' principal subspace (ViM's half)",
    )
    Config = SubspaceConfig
    config: SubspaceConfig

    def make_score(self) -> PostHocScore:
        """The formula."""
        return subspace.Residual(dimensions=self.config.dimensions)
