"""The one way in which methods take a covariance out of vectors."""

import torch
from torch import Tensor

_LEAST_REST = 1e-6


def whitening_matrix(covariance: Tensor, ridge: float, *, variance: float | None = None) -> Tensor:
    r"""Lower-triangular `W` with :math:`W^T W = (\Sigma + r v I)^{-1}`, float64: `|W (x - mean)|` is Mahalanobis.

    The ridge scales with the covariance, so that features in other units give the same distances. Where nothing varies
    (`v` = 0) a ridge is taken as it is, as if the mean variance were 1.

    Args:
        covariance: `[..., D, D]`, symmetric; many are factored at once.
        ridge: r, added to the diagonal as a share of the mean variance.
        variance: v; without it the mean of all the covariances' diagonals.

    Raises:
        ValueError: a covariance is singular even with its ridge.

    >>> whitening_matrix(torch.diag(torch.tensor([4.0, 1.0])), 0.0).abs()
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    # Apple's GPU has no float64.
    exact = (covariance.cpu() if covariance.device.type == "mps" else covariance).double()
    width = exact.shape[-1]
    if variance is None:
        variance = exact.diagonal(dim1=-2, dim2=-1).mean().item()
    identity = torch.eye(width, dtype=exact.dtype, device=exact.device)
    lower, failed = torch.linalg.cholesky_ex(exact + ridge * (variance if variance > 0 else 1.0) * identity)
    if failed.any():
        raise ValueError(
            f"the covariance of the {width} features is singular at ridge={ridge}: fewer images than dimensions or "
            "features that do not vary; raise ridge"
        )
    # Contiguous, as it will be after loading: another memory layout rounds products differently.
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False).contiguous()
    return inverse


def left_out(squares: Tensor, count: int) -> Tensor:
    r"""Squared Mahalanobis distances of vectors to the Gaussian of the *others*, from those to the Gaussian of all.

    Taking one vector out of `count` moves the mean away from it and lowers the covariance by a matrix of rank one, so
    that with :math:`q` its squared distance to all of them

    .. math:: q' = \Bigl(\frac{n}{n-1}\Bigr)^2 \frac{n-2}{n-1} \cdot \frac{q}{1 - q\, n / (n-1)^2}

    (Sherman and Morrison 1950), but for the ridge, which is taken to shrink as the rest does: at a ridge of a hundredth
    by .4 % at most for 40 vectors of 5 dimensions, by 12 % for 12 of 30, where the ridge is much of a distance. A
    vector that was learnt from lies nearer than any other of its kind; this is how far it would lie had it not been.

    Args:
        squares: of any shape, each of a vector that is one of the `count`, by `whitening_matrix` with a ridge above 0.
        count: n, three at least.

    >>> vectors = torch.tensor([[0.0], [1.0], [2.0], [5.0]])
    >>> whiten = whitening_matrix(torch.cov(vectors.T)[None, None], 1e-9)
    >>> to_all = (whiten * (vectors - vectors.mean())).square()
    >>> others = vectors[:3]
    >>> to_others = (vectors[3] - others.mean()).square() / others.var()
    >>> bool(torch.isclose(left_out(to_all, 4)[3].float(), to_others))
    True
    """
    others = count - 1
    # A vector that the others say nothing of leaves only rounding here, which may fall below none.
    rest = (1 - squares * (count / others**2)).clamp_min(_LEAST_REST)
    return (count / others) ** 2 * ((count - 2) / others) * squares / rest


def covariance_behind(matrix: Tensor, ridge: float, *, at_once: int = 256) -> Tensor:
    """What `whitening_matrix` made this of, `[..., D, D]`, float64 on the processor: its inverse, less the ridge.

    To the rounding of the matrix, and where the variance was the mean of all diagonals. ``at_once`` matrices are
    inverted together, which bounds the memory that it takes beside the result's.

    >>> covariance = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> covariance_behind(whitening_matrix(covariance, 0.01), 0.01)
    tensor([[4.0000, 1.0000],
            [1.0000, 3.0000]], dtype=torch.float64)
    """
    width = matrix.shape[-1]
    identity = torch.eye(width, dtype=torch.float64)
    found = torch.empty(matrix.shape, dtype=torch.float64)
    for part, into in zip(
        matrix.detach().reshape(-1, width, width).split(at_once),
        found.view(-1, width, width).split(at_once),
        strict=True,
    ):
        lower = torch.linalg.solve_triangular(part.cpu().double(), identity.expand(part.shape), upper=False)
        torch.matmul(lower, lower.mT, out=into)
    # The mean of the diagonals is v + r v; where nothing varied, r was added as it is.
    diagonal = found.diagonal(dim1=-2, dim2=-1)
    diagonal -= diagonal.mean() * ridge / (1 + ridge)
    return found
