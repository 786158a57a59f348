"""A Gaussian mixture over a few numbers per image, its size chosen on held-out normal images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dracones.rules.rule import Rule


class Mixture(Rule):
    """Minus the log density of a row of numbers under a Gaussian mixture with full covariances.

    The number of components is the one of `components` that gives held-out normal rows (every fourth) the
    highest mean log density; then the mixture is fitted to all rows. `ridge` is added to every covariance, in
    the units of the rows, which are to be of unit scale: without it a statistic that is a sum of others
    would make the density infinite along their difference.
    """

    needs_fit = True
    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        width: int,
        *,
        components: Sequence[int] = (1, 2, 4, 8, 16),
        ridge: float = 1e-4,
        most_rows: int = 20000,
    ) -> None:
        super().__init__()
        self.requires = tuple(f"column{i}" for i in range(width))
        self.components, self.ridge, self.most_rows = tuple(components), ridge, most_rows
        self.fitted_buffers("weights", "means", "factors")

    def fit_rows(self, rows: Tensor) -> None:
        """As `fit`, from rows [N, width]."""
        self.fit(dict(zip(self.requires, rows.unbind(dim=1), strict=True)))

    def score_rows(self, rows: Tensor) -> Tensor:
        """As `score`, from rows [B, width]."""
        return self.score(dict(zip(self.requires, rows.unbind(dim=1), strict=True)))

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        rows = torch.stack(list(statistics.values()), dim=1)[: self.most_rows]
        # a full covariance needs several rows per dimension and component
        room = max(1, len(rows) // (5 * rows.shape[1]))
        sizes = [size for size in self.components if size <= room] or [1]
        if len(sizes) > 1:
            held_out = torch.arange(len(rows), device=rows.device) % 4 == 3
            losses = []
            for size in sizes:
                self._fit_size(rows[~held_out], size)
                losses.append(float(self._score_rows(rows[held_out]).mean()))
            best = sizes[min(range(len(sizes)), key=losses.__getitem__)]
        else:
            best = sizes[0]
        self._fit_size(rows, best)

    def _fit_size(self, rows: Tensor, size: int) -> None:
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(
            size, covariance_type="full", reg_covar=self.ridge, random_state=0, max_iter=200, tol=1e-3
        )
        mixture.fit(rows.cpu().numpy())
        self.weights = torch.as_tensor(mixture.weights_, device=rows.device).clone()
        self.means = torch.as_tensor(mixture.means_, device=rows.device).clone()
        self.factors = torch.as_tensor(mixture.precisions_cholesky_, device=rows.device).clone()

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self._score_rows(torch.stack(list(statistics.values()), dim=1))

    def _score_rows(self, rows: Tensor) -> Tensor:
        return -torch.logsumexp(torch.log(self.weights) + self.component_log_prob(rows), dim=1)

    def component_log_prob(self, rows: Tensor) -> Tensor:
        """Log density [B, components] of rows under each component."""
        parts = []
        for mean, factor in zip(self.means, self.factors, strict=True):
            whitened = (rows - mean) @ factor
            log_det = factor.diagonal().log().sum()
            parts.append(log_det - 0.5 * whitened.square().sum(dim=1) - 0.5 * rows.shape[1] * math.log(2 * math.pi))
        return torch.stack(parts, dim=1)
