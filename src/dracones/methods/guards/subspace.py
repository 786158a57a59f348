"""What the training features never span: the residual, and ViM, its sum with the energy."""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dracones.methods.guards.config import GuardConfig
from dracones.methods.guards.formula import Input
from dracones.methods.guards.guard import Guard
from dracones.methods.guards.logits import Energy
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead
from dracones.methods.info import MethodInfo
from dracones.methods.registry import register


def principal_dimensions(width: int) -> int:
    """The paper's choice of D: 1000 of 2048 or more features, 512 of 768 or more, half of fewer."""
    if width >= 2048:
        return 1000
    return 512 if width >= 768 else width // 2


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
class Residual(Guard):
    """Length of the feature outside the principal subspace of the training features.

    Features are taken from the origin ``-pinv(W) b``, where the last layer's bias vanishes; the subspace is spanned by
    the D largest eigenvectors of ``X^T X``. Sections 3-4 of the paper.

    >>> z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    >>> head = LinearHead(torch.eye(2), torch.zeros(2))
    >>> guard = Residual(dimensions=1).fit_outputs(head(z), z, head=head)
    >>> guard.score_outputs(torch.zeros(1, 2), torch.tensor([[7.0, 4.0]]))
    tensor([4.])
    """

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
    reads: ClassVar[tuple[Input, ...]] = ("logits", "features", "head")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("origin", torch.empty(0))
        self.register_buffer("complement", torch.empty(0))
        self.origin: Tensor
        self.complement: Tensor

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:  # noqa: ARG002
        """Origin and complement of the principal subspace, in float64."""
        if head is None:
            raise ValueError(f"{self.info.name} needs the last layer")
        features = outputs.needed_features(self.info.name).double()
        width = features.shape[1]
        kept = principal_dimensions(width) if self.config.dimensions is None else self.config.dimensions
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

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """The residual's length."""
        return self.residual(ClassifierOutputs(logits, features).needed_features(self.info.name))


@register
class Vim(Residual):
    """ViM: the residual, scaled to the size of a logit, plus the energy.

    ``alpha * |residual| - logsumexp(logits)`` (eq. 4-6). The paper's score, the softmax probability of the virtual
    logit, is a monotone function of it.

    The paper's alpha, mean max logit / mean residual over the training images, changes with a constant added to all
    logits, which means nothing to a classifier, and turns the score round where they are negative. How far the maximum
    lies above the mean over the classes does not change. Where the two sizes agree within a factor of 2, as for usual
    logits, alpha is the paper's; else it is taken from the latter, so that it is above 0 always.

    >>> z = torch.tensor([[3.0, 1.0], [4.0, -1.0], [-5.0, 1.0]])
    >>> head = LinearHead(torch.eye(2), torch.zeros(2))
    >>> guard = Vim(dimensions=1).fit_outputs(head(z), z, head=head)
    >>> far = torch.tensor([[4.0, 0.0], [4.0, 9.0]])
    >>> bool(guard.score_outputs(head(far), far).diff() > 0)
    True
    """

    info: ClassVar[MethodInfo] = _VIM

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("alpha", torch.empty(0))
        self.alpha: Tensor

    def learn(self, outputs: ClassifierOutputs, labels: Tensor | None, head: LinearHead | None) -> None:
        """The subspace, then alpha."""
        super().learn(outputs, labels, head)
        features = outputs.needed_features(self.info.name)
        residual = self.residual(features).double().mean()
        if not residual > 1e-5 * torch.linalg.vector_norm(features.to(self.origin) - self.origin, dim=1).mean():
            raise ValueError("vim: the training features lie in the principal subspace entirely; lower dimensions")
        self.alpha = (_logit_size(outputs.logits.double()) / residual).float()

    def formula(self, logits: Tensor, features: Tensor | None) -> Tensor:
        """Virtual logit against the energy."""
        residual = self.residual(ClassifierOutputs(logits, features).needed_features(self.info.name))
        return self.alpha * residual + Energy.score(logits.to(residual))


def _logit_size(logits: Tensor) -> Tensor:
    """The mean maximum as published; above the mean over the classes where a common shift has moved it away."""
    published = logits.amax(dim=1).mean()
    above = (logits.amax(dim=1) - logits.mean(dim=1)).mean()
    usual = (published >= 0.5 * above) & (published <= 2 * above)
    return torch.where(usual, published, above)
