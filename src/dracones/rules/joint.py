"""The density of all statistics together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dracones.rules.mixture import Mixture
from dracones.rules.normal_scores import NormalScores
from dracones.rules.rule import Rule, register

_STILL = 0.1  # standard deviation of normal scores, which are of unit scale where a statistic moves


@register("joint")
class Joint(Rule):
    """Minus the joint log density of any number of statistics, each on the scale of a standard normal.

    DoSE with the dependences kept: each statistic is brought to normal scores (`NormalScores`), and a Gaussian
    mixture with full covariances, its size and ridge chosen on held-out normal images (`Mixture`), is their
    density. Likelihood and complexity, or the levels' terms, go together among normal images; a pair that does
    not is far from all of them even where each value alone is usual.

    >>> import torch
    >>> x = torch.randn(500, generator=torch.Generator().manual_seed(0)).double()
    >>> rule = Joint(statistics=["a", "b"])
    >>> rule.fit({"a": x, "b": x + 0.01 * x.flip(0)})
    >>> together, apart = rule.score({"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([1.0, -1.0])})
    >>> bool(apart > together + 10)
    True
    """

    needs_fit = True

    def __init__(self, *, statistics: Sequence[str] = ("log_prob", "log_prob_latent", "log_det")) -> None:
        super().__init__()
        if not statistics:
            raise ValueError("joint: needs at least one statistic")
        self.requires = tuple(statistics)
        self.scores = NormalScores(self.requires)
        self.mixture = Mixture(len(self.requires))

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        self.scores.fit(statistics)
        self.mixture.fit_rows(_moving(self.scores.transform(statistics)))

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self.mixture.rows_score(self.scores.transform(statistics))


def _moving(rows: Tensor) -> Tensor:
    """Normal scores [N, width] with every column that stands still replaced by a standard normal draw.

    A statistic that never moves among the normal images at hand has a variance of nothing to judge others by; it is
    judged as the standard normal variable that its score would be if it moved, apart from all others.
    """
    still = rows.std(dim=0) < _STILL
    draws = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0), dtype=rows.dtype).to(rows.device)
    return torch.where(still, draws, rows)
