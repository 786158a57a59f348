"""Geometry of a density around an image: the slope of its log-density, the dimension of its neighbourhood."""

from collections.abc import Callable

import torch
from torch import Tensor

from dracones.rules.rule import Rule, register
from dracones.rules.tails import EmpiricalTail


@register("gradient_norm")
class GradientNorm(Rule):
    """Norm of the gradient of log p with respect to the image: large = far from any mode's flat top.

    Approximate mass: in-distribution images lie where the density is high and flat (Grathwohl et al. 2020,
    "Your classifier is secretly an energy based model", section 5.3, whose score is minus this norm).

    >>> GradientNorm().score({"gradient_norm": torch.tensor([2.0])}).item()
    2.0
    """

    requires = ("gradient_norm",)

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return statistics["gradient_norm"]


def gradient_norm(log_prob_at: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Euclidean norm [B] of the gradient of `log_prob_at` (points [B, ...] to nats [B]) at each point.

    >>> gradient_norm(lambda y: -0.5 * y.square().sum(1), torch.tensor([[3.0, 4.0]])).item()
    5.0
    """
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_prob_at(leaf).sum(), leaf)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return norms


@register("intrinsic_dimension")
class IntrinsicDimension(Rule):
    """Normal only if both log p and the local intrinsic dimension are high: an image must have density *and* mass.

    An image simpler than the normal ones has a high density on a submanifold of low dimension, hence little
    probability mass; the two thresholds of the paper (psi_L, psi_LID) become one score, minus the smaller of the
    lower-tail conformal log p-values of the two among normal images.

    Reference: Kamkari et al. 2024, "A Geometric Explanation of the Likelihood OOD Detection Paradox" (ICML),
    algorithm 1.
    """

    requires = ("log_prob", "intrinsic_dimension")
    needs_fit = True

    def __init__(self) -> None:
        super().__init__()
        self.density, self.dimension = EmpiricalTail(upper=False), EmpiricalTail(upper=False)

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        self.density.fit({"value": statistics["log_prob"]})
        self.dimension.fit({"value": statistics["intrinsic_dimension"]})

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return -torch.minimum(
            self.density.log_p(statistics["log_prob"]),
            self.dimension.log_p(statistics["intrinsic_dimension"]),
        )


def intrinsic_dimension(
    decode: Callable[[Tensor], Tensor], latents: Tensor, *, threshold: float, directions: int = 128
) -> Tensor:
    """Number [B] of singular values of the decoder's Jacobian above `threshold`, exact.

    `decode` maps latents [B, D] to points [B, D'], each sample on its own. The Jacobian is built column by column,
    `directions` at a time, by forward-mode products: D of them per image, about two thousand times the cost of a
    likelihood for 784 pixels. A stochastic quadrature of few products would be cheaper, but the spectrum of a
    trained flow spans four decades with the threshold in its middle, where such quadratures are off by half.

    Reference: Kamkari et al. 2024, eq. 4.

    >>> scale = torch.tensor([5.0, 5.0, 0.1, 0.1])
    >>> intrinsic_dimension(lambda z: z * scale, torch.zeros(2, 4), threshold=1.0).tolist()
    [2.0, 2.0]
    """
    if threshold <= 0 or directions < 1:
        raise ValueError(
            f"intrinsic_dimension: threshold and directions must be positive, got {threshold}, {directions}"
        )
    counts = [(_singular_values(decode, row, directions) > threshold).sum() for row in latents.detach()]
    return torch.stack(counts).to(latents) if counts else latents.new_zeros(0)


def _singular_values(decode: Callable[[Tensor], Tensor], latent: Tensor, directions: int) -> Tensor:
    columns = []
    for unit in torch.eye(len(latent), dtype=latent.dtype, device=latent.device).split(directions):
        here = latent.expand(len(unit), -1).contiguous()
        columns.append(torch.func.jvp(decode, (here,), (unit,))[1].detach())
    spectrum: Tensor = torch.linalg.svdvals(torch.cat(columns))
    return spectrum
