"""Take the mean and the covariance out of vectors: what is left for a flow to learn is what is not Gaussian."""

import torch
from torch import Tensor

from dracones.flows import Bijection
from dracones.flows.bijection import Pattern
from dracones.flows.precision import full_precision
from dracones.methods.whitening import covariance_behind, whitening_matrix


class Whitening(Bijection):
    r"""`z = W (x - mean)` for vectors `[B, D]`, W the lower-triangular inverse Cholesky factor of a covariance.

    After `fit` the log-density of z under a standard normal, with the log-det :math:`\sum_i \log W_{ii}`, is that of
    the Gaussian of the training vectors: a flow behind it starts as the Mahalanobis distance and can only learn more.
    Before `fit` it is the identity. Mean and matrix are buffers.

    Args:
        dims: D.
        ridge: added to the covariance's diagonal, relative to the mean variance.

    Example:
        >>> whitening = Whitening(2)
        >>> whitening.fit(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]]))
        >>> whitening.encode(torch.tensor([[1.0, 2.0]]))[0]
        tensor([[0., 0.]])
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dims: int, *, ridge: float = 0.01) -> None:
        super().__init__()
        self.ridge = ridge
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("matrix", torch.eye(dims))

    @property
    def x_pattern(self) -> Pattern:
        """Vectors."""
        return (len(self.mean),)

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Take mean and covariance from vectors `[N, D]`; N may be smaller than D, thanks to the ridge.

        Raises:
            ValueError: fewer than two vectors.
        """
        if len(vectors) < 2:
            raise ValueError(f"Whitening: a covariance needs at least 2 vectors; got {len(vectors)}")
        exact = vectors.double()
        self.mean.copy_(exact.mean(dim=0))
        self.matrix.copy_(whitening_matrix(torch.cov(exact.T), self.ridge))

    @torch.no_grad()
    def learn_on(self, vectors: Tensor, count: int) -> None:
        """Take in further vectors `[N, D]`, as if they had been among the ``count`` of before; to rounding."""
        exact, before = vectors.cpu().double(), self.mean.cpu().double()
        every = count + len(exact)
        about = exact - before
        shift = about.sum(dim=0) / every
        scatter = covariance_behind(self.matrix, self.ridge).mul_(count - 1).addmm_(about.T, about)
        scatter -= every * torch.outer(shift, shift)
        self.mean.copy_(before + shift)
        self.matrix.copy_(whitening_matrix(scatter / (every - 1), self.ridge))

    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        del context
        with full_precision(x):
            z = (x - self.mean.to(x.dtype)) @ self.matrix.to(x.dtype).T
        return z, self._log_det(x)

    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        del context
        back = torch.linalg.solve_triangular(self.matrix.to(z.dtype), z.T, upper=False).T
        return back + self.mean.to(z.dtype), self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return self.matrix.diagonal().log().sum().to(x.dtype).expand(x.shape[0])
