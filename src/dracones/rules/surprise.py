"""Likelihood lower than the image's own statistics lead to expect."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dracones.rules.normal_scores import NormalScores
from dracones.rules.rule import Rule, register


@register("surprise")
class Surprise(Rule):
    """What is left of -log p(x) when the part that the image's own statistics explain is taken away.

    Among normal images log p(x) is regressed (ridge, on normal scores) on statistics of the image alone:
    compressed size, sub-band energies, levels. The score is the expected minus the actual normal score of
    log p(x): large = less likely than normal images of this complexity are. The codec's subtraction of Serra et
    al. 2020 with weights learnt from normal images and more than one measure of complexity.

    >>> size = torch.linspace(-1, 1, 200).double()
    >>> rule = Surprise(given=["complexity_png"])
    >>> rule.fit({"log_prob": -size, "complexity_png": size})
    >>> fitting, too_low = rule.score({"log_prob": torch.tensor([0.5, 0.0]),
    ...                                "complexity_png": torch.tensor([-0.5, -0.5])})
    >>> bool(too_low > fitting + 0.5)
    True
    """

    needs_fit = True
    weights: Tensor

    def __init__(
        self, *, given: Sequence[str] = ("complexity_webp",), target: str = "log_prob", ridge: float = 1e-3
    ) -> None:
        super().__init__()
        if not given:
            raise ValueError("surprise: needs at least one statistic to expect the likelihood from")
        if ridge <= 0:
            raise ValueError(f"surprise: ridge must be positive, got {ridge}")
        self.target, self.given, self.ridge = target, tuple(given), ridge
        self.requires = (target, *self.given)
        self.of_target, self.of_given = NormalScores((target,)), NormalScores(self.given)
        self.fitted_buffers("weights")

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        self.of_target.fit(statistics)
        self.of_given.fit(statistics)
        rows, target = self._design(statistics), self.of_target.transform(statistics)
        penalty = self.ridge * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        penalty[0, 0] = 0.0  # the constant is not shrunk
        self.weights = torch.linalg.solve(rows.T @ rows + penalty, rows.T @ target)[:, 0]

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self._design(statistics) @ self.weights - self.of_target.transform(statistics)[:, 0]

    def _design(self, statistics: dict[str, Tensor]) -> Tensor:
        rows = self.of_given.transform(statistics)
        return torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1)
