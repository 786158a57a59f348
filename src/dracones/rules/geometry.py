"""Geometry of a density around an image: the slope of its log-density, the dimension of its neighbourhood."""

import math
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
    return gradient.flatten(1).norm(dim=1)


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
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    *,
    threshold: float,
    probes: int = 2,
    steps: int = 12,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimated number [B] of singular values of the decoder's Jacobian above `threshold`.

    `decode` maps latents [B, D] to points [B, D'], each sample on its own. The count of eigenvalues of J J^T
    above threshold squared is read off a stochastic Lanczos quadrature: `probes` random starts of `steps`
    Jacobian products each instead of all D columns. It is exact for one probe per dimension's worth of steps
    (steps >= number of distinct singular values, averaged over probes), and unbiased in the starts.

    Without a generator the starts are the same ones for every image and call (seed 0).

    Reference: Ubaru, Chen and Saad 2017 (quadrature); Kamkari et al. 2024, eq. 4 (the count as dimension).

    >>> scale = torch.tensor([5.0, 5.0, 0.1, 0.1]).double()
    >>> intrinsic_dimension(lambda z: z * scale, torch.zeros(1, 4).double(), threshold=1.0).round().item()
    2.0
    """
    if threshold <= 0 or probes < 1 or steps < 1:
        raise ValueError(
            f"intrinsic_dimension: threshold, probes and steps must be positive, got {threshold}, {probes}, {steps}"
        )
    if generator is None:
        generator = torch.Generator(latents.device).manual_seed(0)
    latents = latents.detach()
    size = latents.shape[1]
    counts = latents.new_zeros(len(latents))
    for _ in range(probes):
        # the same signs for every image: the estimate must not depend on who else is in the batch
        start = torch.randint(0, 2, (1, size), generator=generator, device=generator.device).to(latents) * 2 - 1
        start = (start / math.sqrt(size)).expand_as(latents)
        nodes, weights = _lanczos(decode, latents, start, steps)
        counts = counts + size * (weights * (nodes > threshold**2)).sum(dim=1)
    return counts / probes


def _lanczos(decode: Callable[[Tensor], Tensor], latents: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Quadrature nodes and weights [B, steps] of J^T J seen from `start`, with full reorthogonalisation."""
    pull_back = torch.func.vjp(decode, latents)[1]
    basis: list[Tensor] = []
    diagonal, off_diagonal = [], []
    vector, previous = start, torch.zeros_like(start)
    beta = start.new_zeros(len(start))
    tiny = torch.finfo(start.dtype).eps
    for _ in range(min(steps, latents.shape[1])):
        basis.append(vector)
        pushed = torch.func.jvp(decode, (latents,), (vector,))[1]
        (product,) = pull_back(pushed)
        alpha = (product * vector).sum(dim=1)
        residual = product - alpha[:, None] * vector - beta[:, None] * previous
        for old in basis:
            residual = residual - (residual * old).sum(dim=1, keepdim=True) * old
        diagonal.append(alpha)
        beta = residual.norm(dim=1)
        # an invariant subspace is found: what follows has no weight
        beta = torch.where(beta > 1e3 * tiny * alpha.abs(), beta, torch.zeros_like(beta))
        off_diagonal.append(beta)
        previous, vector = vector, residual / beta.clamp_min(tiny)[:, None] * (beta > 0)[:, None]
    matrix = torch.diag_embed(torch.stack(diagonal, dim=1))
    inner = torch.stack(off_diagonal[:-1], dim=1) if len(off_diagonal) > 1 else matrix.new_zeros(len(matrix), 0)
    if inner.shape[1]:
        matrix = matrix + torch.diag_embed(inner, offset=1) + torch.diag_embed(inner, offset=-1)
    nodes, vectors = torch.linalg.eigh(matrix)
    return nodes, vectors[:, 0, :].square()
