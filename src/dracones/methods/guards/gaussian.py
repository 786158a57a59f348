"""Gaussians in feature space: Mahalanobis distance to the nearest class, and relative to a background."""

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.post_hoc import Input, PostHocScore


def whitening(covariance: Tensor, ridge: float) -> Tensor:
    """``A`` with ``A.T @ A = (covariance + ridge * trace / F * I)^-1``, ``[F, F]``.

    The ridge scales with the covariance, so that features in other units give the same distances.

    Raises:
        ValueError: a covariance of zeros (constant features).

    >>> whitening(torch.diag(torch.tensor([4.0, 1.0])), 0.0).abs()
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    """
    width = len(covariance)
    variance = covariance.diagonal().mean()
    if not variance > 0:
        raise ValueError(f"the {width} features do not vary over the training images: no distance can be measured")
    ridged = covariance + ridge * variance * torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    factor, failed = torch.linalg.cholesky_ex(ridged)
    if failed:
        raise ValueError(
            f"the covariance of the {width} features is singular at ridge={ridge}: fewer images than dimensions "
            "or dead "
            "features; raise ridge (1e-6 is the default)"
        )
    identity = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
    # Contiguous, as it will be after loading: another memory layout rounds products differently.
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False).contiguous()
    return inverse


class Mahalanobis(PostHocScore):
    """Squared Mahalanobis distance to the nearest class mean under one shared covariance.

    ``min_k (z - mu_k)^T Sigma^-1 (z - mu_k)``, Sigma the within-class covariance (divided by N). The paper's
    confidence is
    minus this; pytorch-ood's number is this divided by 2N. The paper's ensemble over layers and its input
    perturbation are left out.

    Args:
        ridge: added to the covariance's diagonal, as a share of its mean variance (trace / F).

    Reference: Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks", NeurIPS 2018, eq. 1-2.

    >>> z = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> outputs = ClassifierOutputs(torch.zeros(4, 2), z)
    >>> score = Mahalanobis(ridge=0.0).fit(outputs, labels=torch.tensor([0, 0, 1, 1]))
    >>> score.score(ClassifierOutputs(torch.zeros(1, 2), torch.tensor([[4.0]])))
    tensor([9.])
    """

    reads: ClassVar[tuple[Input, ...]] = ("logits", "features", "labels")

    def __init__(self, *, ridge: float = 1e-6) -> None:
        super().__init__()
        if ridge < 0:
            raise ValueError(f"ridge must not be negative, got {ridge}")
        self.ridge = ridge
        for name in ("origin", "whiten", "centres"):
            self.register_buffer(name, torch.empty(0))
        self.origin: Tensor
        self.whiten: Tensor
        self.centres: Tensor

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Class means and the shared covariance, in float64."""
        del head
        features = outputs.needed_features("Mahalanobis").double()
        if labels is None:
            raise ValueError("Mahalanobis needs labels")
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
        matrix = whitening(within.T @ within / len(features), self.ridge)
        # Distances are taken around the global mean, which costs float32 no digits when features lie far from zero.
        origin = features.mean(dim=0)
        self.origin = origin.float()
        self.whiten = matrix.float()
        self.centres = ((means - origin) @ matrix.T).float()

    def class_distances(self, features: Tensor) -> Tensor:
        """Squared distance to each class mean, ``[B, K]``."""
        points = (features.to(self.origin) - self.origin) @ self.whiten.T
        return torch.cdist(points, self.centres, compute_mode="donot_use_mm_for_euclid_dist").square()

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """Distance to the nearest class."""
        return self.class_distances(outputs.needed_features("Mahalanobis")).amin(dim=1)


class RelativeMahalanobis(Mahalanobis):
    """Mahalanobis distance to the nearest class minus the distance to one Gaussian of all training features.

    ``min_k d_k(z) - d_0(z)``: what makes an image unusual for any class is taken away, which helps near the
    training distribution. pytorch-ood's number is this divided by N.

    Reference: Ren, Fort, Liu, Roy, Padhy, Lakshminarayanan, "A Simple Fix to Mahalanobis Distance for Improving
    Near-OOD Detection", 2021, eq. 2-3.

    >>> z = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> outputs = ClassifierOutputs(torch.zeros(4, 2), z)
    >>> score = RelativeMahalanobis(ridge=0.0).fit(outputs, labels=torch.tensor([0, 0, 1, 1]))
    >>> round(score.score(ClassifierOutputs(torch.zeros(1, 2), torch.tensor([[4.0]]))).item(), 4)
    8.8462
    """

    def __init__(self, *, ridge: float = 1e-6) -> None:
        super().__init__(ridge=ridge)
        self.register_buffer("background", torch.empty(0))
        self.background: Tensor

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The classes' Gaussians, then the background's."""
        super().fit_outputs(outputs, labels, head)
        features = outputs.needed_features("RelativeMahalanobis").double()
        centred = features - features.mean(dim=0)
        self.background = whitening(centred.T @ centred / len(features), self.ridge).float()

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """Nearest class minus background."""
        features = outputs.needed_features("RelativeMahalanobis").to(self.origin)
        background = ((features - self.origin) @ self.background.T).square().sum(dim=1)
        return self.class_distances(features).amin(dim=1) - background
