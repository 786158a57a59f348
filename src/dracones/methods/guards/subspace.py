"""What the training features never span: the residual, and ViM, its sum with the energy."""

from typing import ClassVar

import torch
from torch import Tensor

from dracones.methods.guards.logit_scores import energy
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.guards.post_hoc import Input, PostHocScore


def principal_dimensions(width: int) -> int:
    """The paper's choice of D: 1000 of 2048 or more features, 512 of 768 or more, half of fewer."""
    if width >= 2048:
        return 1000
    return 512 if width >= 768 else width // 2


class Residual(PostHocScore):
    """Length of the feature outside the principal subspace of the training features.

    Features are taken from the origin ``-pinv(W) b``, where the last layer's bias vanishes; the subspace is spanned by
    the D largest eigenvectors of ``X^T X``.

    Args:
        dimensions: D; ``None`` for the paper's choice (`principal_dimensions`).

    Reference: Wang, Li, Feng, Zhang, "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022, sections 3-4.

    >>> z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    >>> head = LinearHead(torch.eye(2), torch.zeros(2))
    >>> score = Residual(dimensions=1).fit(ClassifierOutputs(head(z), z), head=head)
    >>> score.score(ClassifierOutputs(torch.zeros(1, 2), torch.tensor([[7.0, 4.0]])))
    tensor([4.])
    """

    reads: ClassVar[tuple[Input, ...]] = ("logits", "features", "head")

    def __init__(self, *, dimensions: int | None = None) -> None:
        super().__init__()
        if dimensions is not None and dimensions < 1:
            raise ValueError(f"dimensions must be at least 1, got {dimensions}")
        self.dimensions = dimensions
        self.register_buffer("origin", torch.empty(0))
        self.register_buffer("complement", torch.empty(0))
        self.origin: Tensor
        self.complement: Tensor

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """Origin and complement of the principal subspace, in float64."""
        del labels
        if head is None:
            raise ValueError(f"{type(self).__name__} needs the last layer")
        features = outputs.needed_features(type(self).__name__).double()
        width = features.shape[1]
        kept = principal_dimensions(width) if self.dimensions is None else self.dimensions
        if not 1 <= kept < width:
            raise ValueError(f"dimensions must be between 1 and {width - 1} for {width} features, got {kept}")
        weight, bias = head.weight.to(features), head.bias.to(features)
        # Weights are known to float32 only: singular values below that are rounding, and their inverses would throw the
        # origin far away (a layer whose rows sum to zero, as weight decay makes them, has one).
        rounding = max(weight.shape) * torch.finfo(torch.float32).eps
        origin = -(torch.linalg.pinv(weight, rtol=rounding) @ bias)
        centred = features - origin
        # eigh sorts ascending: the first F - D vectors span the complement.
        vectors = torch.linalg.eigh(centred.T @ centred / len(features)).eigenvectors
        self.origin = origin.float()
        self.complement = vectors[:, : width - kept].float().contiguous()

    def residual(self, features: Tensor) -> Tensor:
        """Length outside the subspace, ``[B]``."""
        residual: Tensor = torch.linalg.vector_norm((features.to(self.origin) - self.origin) @ self.complement, dim=1)
        return residual

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """The residual's length."""
        return self.residual(outputs.needed_features("Residual"))


class VirtualLogit(Residual):
    """ViM: the residual, scaled to the size of a logit, plus the energy.

    ``alpha * |residual| - logsumexp(logits)`` with alpha = mean max logit / mean residual over the training images. The
    paper's score, the softmax probability of the virtual logit, is a monotone function of it.

    Reference: Wang, Li, Feng, Zhang, CVPR 2022, eq. 4-6.

    >>> z = torch.tensor([[3.0, 1.0], [4.0, -1.0], [-5.0, 1.0]])
    >>> head = LinearHead(torch.eye(2), torch.zeros(2))
    >>> score = VirtualLogit(dimensions=1).fit(ClassifierOutputs(head(z), z), head=head)
    >>> far = torch.tensor([[4.0, 0.0], [4.0, 9.0]])
    >>> bool(score.score(ClassifierOutputs(head(far), far)).diff() > 0)
    True
    """

    def __init__(self, *, dimensions: int | None = None) -> None:
        super().__init__(dimensions=dimensions)
        self.register_buffer("alpha", torch.ones(()))
        self.alpha: Tensor

    def fit_outputs(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The subspace, then alpha."""
        super().fit_outputs(outputs, labels, head)
        features = outputs.needed_features("ViM")
        residual = self.residual(features).double().mean()
        if not residual > 1e-5 * torch.linalg.vector_norm(features.to(self.origin) - self.origin, dim=1).mean():
            raise ValueError("ViM: the training features lie in the principal subspace entirely; lower dimensions")
        self.alpha = (outputs.logits.amax(dim=1).double().mean() / residual).float()

    def score_outputs(self, outputs: ClassifierOutputs) -> Tensor:
        """Virtual logit against the energy."""
        residual = self.residual(outputs.needed_features("ViM"))
        return self.alpha * residual + energy(outputs.logits.to(residual))
