"""The density of all statistics together."""

from collections.abc import Sequence

from torch import Tensor

from dracones.rules.mixture import Mixture
from dracones.rules.normal_scores import NormalScores
from dracones.rules.rule import Rule, register


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
        self.mixture.fit_rows(self.scores.transform(statistics))

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self.mixture.score_rows(self.scores.transform(statistics))
