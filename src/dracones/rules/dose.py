"""Density of states: how usual a density's own statistics are, rather than how high the likelihood is.

Reference: Morningstar et al. 2021, "Density of States Estimation for Out-of-Distribution Detection" (AISTATS).
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from dracones.rules.rule import Rule, register

Estimator = Literal["kde", "svm"]
_FLOW_STATISTICS = ("log_prob", "log_prob_latent", "log_det")


@register("dose")
class DoSE(Rule):
    """Minus the sum of the log densities of each statistic, or a one-class SVM on all of them.

    `method="kde"`: one Gaussian kernel density per statistic, bandwidth by Scott's rule, score
    -sum_i log KDE_i(s_i) (the paper's DoSE_KDE). `method="svm"`: a one-class support vector machine with a
    Gaussian kernel on standardised statistics (DoSE_SVM). The paper's statistics of a flow are log p(x),
    log p(z) and log|det|. Fitted on normal images; more than `most_points` of them are thinned evenly in order.

    >>> rule = DoSE(statistics=["log_prob"])
    >>> rule.fit({"log_prob": torch.linspace(-1, 1, 200)})
    >>> inside, high, low = rule.score({"log_prob": torch.tensor([0.0, 4.0, -4.0])})
    >>> bool(high > inside), bool(low > inside)
    (True, True)
    """

    needs_fit = True
    center: Tensor
    spread: Tensor
    points: Tensor
    weights: Tensor
    offset: Tensor

    def __init__(
        self,
        *,
        statistics: Sequence[str] = _FLOW_STATISTICS,
        method: Estimator = "kde",
        nu: float = 0.1,
        most_points: int = 4096,
    ) -> None:
        super().__init__()
        if method not in get_args(Estimator):
            raise ValueError(f"dose: method must be {' or '.join(map(repr, get_args(Estimator)))}, got {method!r}")
        if not statistics:
            raise ValueError("dose: needs at least one statistic")
        if not 0 < nu < 1:
            raise ValueError(f"dose: nu (the share of normal images left outside) must be in (0, 1), got {nu}")
        self.requires = tuple(statistics)
        self.method, self.nu, self.most_points = method, nu, most_points
        self.fitted_buffers("center", "spread", "points", "weights", "offset")

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        values = torch.stack([statistics[name] for name in self.requires], dim=1)
        self.center, spread = values.mean(dim=0), values.std(dim=0)
        # a statistic that is constant on normal images: any change is far out, but finite
        self.spread = torch.maximum(spread, 1e-6 * (1 + self.center.abs()))
        scaled = (values - self.center) / self.spread
        if self.method == "kde":
            self._fit_kernels(scaled)
        else:
            self._fit_svm(scaled)

    def _fit_kernels(self, scaled: Tensor) -> None:
        count = len(scaled)
        bandwidth = count ** (-1 / 5)  # Scott 1992, one dimension, unit variance
        self.points = _thin(scaled.sort(dim=0).values, self.most_points)
        self.weights = torch.full_like(self.center, bandwidth)
        self.offset = torch.zeros((), dtype=scaled.dtype, device=scaled.device)

    def _fit_svm(self, scaled: Tensor) -> None:
        from sklearn.svm import OneClassSVM

        machine = OneClassSVM(kernel="rbf", gamma=1.0 / scaled.shape[1], nu=self.nu)
        machine.fit(_thin(scaled, self.most_points).cpu().numpy())
        device = scaled.device
        self.points = torch.as_tensor(machine.support_vectors_, device=device).clone()
        self.weights = torch.as_tensor(machine.dual_coef_[0], device=device).clone()
        self.offset = torch.as_tensor(machine.offset_, device=device).reshape(()).clone()

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        values = torch.stack([statistics[name] for name in self.requires], dim=1)
        scaled = (values - self.center) / self.spread
        if self.method == "svm":
            return self._distance_to_normal(scaled)
        return -torch.stack([self._log_density(scaled[:, i], i) for i in range(len(self.requires))]).sum(dim=0)

    def _distance_to_normal(self, scaled: Tensor) -> Tensor:
        norms = scaled.square().sum(dim=1)[:, None] + self.points.square().sum(dim=1)[None]
        squared = (norms - 2 * scaled @ self.points.T).clamp_min(0)
        return self.offset - torch.exp(-squared / scaled.shape[1]) @ self.weights

    def _log_density(self, scaled: Tensor, i: int) -> Tensor:
        bandwidth = self.weights[i]
        distance = (scaled[:, None] - self.points[None, :, i]) / bandwidth
        constant = torch.log(bandwidth * math.sqrt(2 * math.pi) * len(self.points))
        return torch.logsumexp(-0.5 * distance.square(), dim=1) - constant


def _thin(values: Tensor, most: int) -> Tensor:
    if len(values) <= most:
        return values
    index = torch.linspace(0, len(values) - 1, most, device=values.device).round().long()
    return values[index]
