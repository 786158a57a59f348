"""Gaussians in feature space: Mahalanobis distance to the nearest class, and relative to a background."""

import warnings
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.formula import Input
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register
from dracones.methods.whitening import whitening_matrix


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """The whitening matrix `[F, F]` of features that vary.

    Raises:
        ValueError: a covariance of zeros (constant features), or one singular at this ridge.
    """
    if not covariance.diagonal().mean() > 0:
        raise ValueError(
            f"the {len(covariance)} features do not vary over the training images: no distance can be measured"
        )
    return whitening_matrix(covariance, ridge)


class GaussianConfig(GuardConfig):
    """Options of both Mahalanobis distances."""

    ridge: float = Field(1e-6, ge=0, description="added to the covariance's diagonal, as a share of its mean variance")


@register
class Mahalanobis(Guard):
    """Squared Mahalanobis distance to the nearest class mean under one shared covariance.

    ``min_k (z - mu_k)^T Sigma^-1 (z - mu_k)``, Sigma the within-class covariance (divided by N). The paper's
    confidence is minus this; pytorch-ood's number is this divided by 2N. The paper's ensemble over layers and its input
    perturbation are left out.

    >>> z = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> guard = Mahalanobis(ridge=0.0).fit_outputs(torch.zeros(4, 2), z, labels=torch.tensor([0, 0, 1, 1]))
    >>> guard.score_outputs(torch.zeros(1, 2), torch.tensor([[4.0]]))
    tensor([9.])
    """

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
    reads: ClassVar[tuple[Input, ...]] = ("logits", "features", "labels")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("origin", "whiten", "centres"):
            self.register_buffer(name, torch.empty(0))
        self.origin: Tensor
        self.whiten: Tensor
        self.centres: Tensor

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:  # noqa: ARG002
        """Class means and the shared covariance, in float64."""
        features = outputs.needed_features(self.info.name).double()
        if labels is None:
            raise ValueError(f"{self.info.name} needs labels")
        present = labels.unique()
        absent = outputs.logits.shape[1] - len(present)
        if absent:
            warnings.warn(
                f"{absent} of the classifier's {outputs.logits.shape[1]} classes have no training image; "
                "images of these classes will look anomalous",
                UserWarning,
                stacklevel=4,
            )
        means = torch.stack([features[labels == k].mean(dim=0) for k in present])
        within = features - means[torch.searchsorted(present, labels.contiguous())]
        matrix = whitening(within.T @ within / len(features), self.config.ridge)
        # Distances are taken around the global mean, which costs float32 no digits when features lie far from zero.
        origin = features.mean(dim=0)
        self.origin = origin.float()
        self.whiten = matrix.float()
        self.centres = ((means - origin) @ matrix.T).float()

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Squared distance to the nearest class mean.

        The expanded square finds which is nearest; its distance is then measured by difference, which keeps the digits
        that the square loses far from the origin.
        """
        features = ClassifierOutputs(logits, features).needed_features(self.info.name)
        points = (features.to(self.origin) - self.origin) @ self.whiten.T
        nearest = (0.5 * self.centres.square().sum(dim=1) - points @ self.centres.T).argmin(dim=1)
        return (points - self.centres[nearest]).square().sum(dim=1)


@register
class RelativeMahalanobis(Mahalanobis):
    """Mahalanobis distance to the nearest class minus the distance to one Gaussian of all training features.

    ``min_k d_k(z) - d_0(z)``: what makes an image unusual for any class is taken away, which helps near the
    training distribution. pytorch-ood's number is this divided by N.

    >>> z = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> guard = RelativeMahalanobis(ridge=0.0).fit_outputs(torch.zeros(4, 2), z, labels=torch.tensor([0, 0, 1, 1]))
    >>> round(guard.score_outputs(torch.zeros(1, 2), torch.tensor([[4.0]])).item(), 4)
    8.8462
    """

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

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("background", torch.empty(0))
        self.background: Tensor

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The classes' Gaussians, then the background's."""
        super().learn(outputs, labels, head)
        features = outputs.needed_features(self.info.name).double()
        centred = features - features.mean(dim=0)
        self.background = whitening(centred.T @ centred / len(features), self.config.ridge).float()

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Nearest class minus background."""
        features = ClassifierOutputs(logits, features).needed_features(self.info.name).to(self.origin)
        background = ((features - self.origin) @ self.background.T).square().sum(dim=1)
        return super().formula(logits, features) - background
