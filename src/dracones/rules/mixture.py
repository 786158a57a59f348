"""A Gaussian mixture over a few numbers per image, its size chosen on held-out normal images."""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from dracones.rules.rule import Rule


class Mixture(Rule):
    """Minus the log density of a row of numbers under a Gaussian mixture with full covariances.

    Ridge (added to every covariance, in the units of the rows, which are to be of unit scale) and number of
    components are judged by the mean log density of held-out normal rows, every fourth: the largest ridge, then
    the smallest number, within a standard error of the best; then the mixture is fitted to all rows. Without a
    ridge a statistic that is a sum of others would make the density infinite along their difference.
    """

    needs_fit = True
    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        width: int,
        *,
        components: Sequence[int] = (1, 2, 4, 8),
        ridges: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
        most_rows: int = 10000,
    ) -> None:
        super().__init__()
        self.requires = tuple(f"column{i}" for i in range(width))
        self.components, self.ridges, self.most_rows = tuple(components), tuple(ridges), most_rows
        self.fitted_buffers("weights", "means", "factors")

    def fit_rows(self, rows: Tensor) -> None:
        """As `fit`, from rows [N, width]."""
        self.fit(dict(zip(self.requires, rows.unbind(dim=1), strict=True)))

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        rows = torch.stack(list(statistics.values()), dim=1)[: self.most_rows]
        ridge, size = self.ridges[0], 1
        if len(rows) >= 8:
            held_out = torch.arange(len(rows), device=rows.device) % 4 == 3
            seen, unseen = rows[~held_out], rows[held_out]
            ridge = self._choose([(1, each) for each in self.ridges[::-1]], seen, unseen)[1]
            # a full covariance needs several rows per dimension and component
            room = max(1, len(rows) // (5 * rows.shape[1]))
            sizes = [each for each in self.components if each <= room] or [1]
            size = self._choose([(each, ridge) for each in sizes], seen, unseen)[0]
        self._fit_size(rows, size, ridge)

    def _choose(self, candidates: list[tuple[int, float]], seen: Tensor, unseen: Tensor) -> tuple[int, float]:
        """The first of the (size, ridge) pairs, simplest first, that is within a standard error of the best."""
        losses = []
        for size, ridge in candidates:
            self._fit_size(seen, size, ridge)
            losses.append(self.rows_score(unseen))
        best = min(losses, key=lambda each: float(each.mean()))
        for candidate, loss in zip(candidates, losses, strict=True):
            excess = loss - best
            if float(excess.mean()) <= float(excess.std()) / len(excess) ** 0.5:
                return candidate
        return candidates[-1]

    def _fit_size(self, rows: Tensor, size: int, ridge: float) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(size, covariance_type="full", reg_covar=ridge, random_state=0, max_iter=200, tol=1e-3)
        with warnings.catch_warnings():  # held-out rows judge the fit, converged or not
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(rows.cpu().numpy())
        self.weights = torch.as_tensor(mixture.weights_, device=rows.device).clone()
        self.means = torch.as_tensor(mixture.means_, device=rows.device).clone()
        self.factors = torch.as_tensor(mixture.precisions_cholesky_, device=rows.device).clone()

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self.rows_score(torch.stack(list(statistics.values()), dim=1))

    def rows_score(self, rows: Tensor) -> Tensor:
        """The score [B] of rows [B, width]."""
        return -torch.logsumexp(torch.log(self.weights) + self.component_log_prob(rows), dim=1)

    def component_log_prob(self, rows: Tensor) -> Tensor:
        """Log density [B, components] of rows under each component."""
        parts = []
        for mean, factor in zip(self.means, self.factors, strict=True):
            whitened = (rows - mean) @ factor
            log_det = factor.diagonal().log().sum()
            parts.append(log_det - 0.5 * whitened.square().sum(dim=1) - 0.5 * rows.shape[1] * math.log(2 * math.pi))
        return torch.stack(parts, dim=1)
