"""Plain likelihood and its two terms, alone: the baselines that lie, and the parts that show why."""

from typing import Literal, get_args

import torch
from torch import Tensor

from dracones.rules.rule import Rule, register
from dracones.rules.tails import EmpiricalTail

Sides = Literal["one", "two"]


@register("likelihood")
class Likelihood(Rule):
    """Negative log-likelihood in nats. The first rule anybody tries (Bishop 1994), and the one that fails.

    >>> Likelihood().score({"log_prob": torch.tensor([-5.0])})
    tensor([5.], dtype=torch.float64)
    """

    requires = ("log_prob",)

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return -statistics["log_prob"]


class Term(Rule):
    """One statistic alone, on one side or on both.

    One-sided: the score is minus the statistic ("low is anomalous"), nothing is fitted. Two-sided: minus twice
    the smaller one-sided conformal p-value's logarithm among the normal images, so that a value too high is as
    anomalous as one too low.

    >>> rule = Term("log_det", sides="two")
    >>> rule.fit({"log_det": torch.linspace(-1, 1, 101)})
    >>> low, middle, high = rule.score({"log_det": torch.tensor([-3.0, 0.0, 3.0])})
    >>> bool(low > middle), bool(high > middle)
    (True, True)
    """

    def __init__(self, statistic: str, *, sides: Sides = "one") -> None:
        super().__init__()
        if sides not in get_args(Sides):
            raise ValueError(f"sides: expected {' or '.join(map(repr, get_args(Sides)))}, got {sides!r}")
        self.statistic, self.sides = statistic, sides
        self.requires = (statistic,)
        self.needs_fit = sides == "two"
        self.low, self.high = EmpiricalTail(upper=False), EmpiricalTail(upper=True)

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        if self.sides == "two":
            for tail in (self.low, self.high):
                tail.fit({"value": statistics[self.statistic]})

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        values = statistics[self.statistic]
        if self.sides == "one":
            return -values
        return -torch.minimum(self.low.log_p(values), self.high.log_p(values))


@register("latent")
class Latent(Term):
    """The latent term log p(z) of a flow alone; low is anomalous, or both sides (`sides="two"`).

    >>> Latent().score({"log_prob_latent": torch.tensor([-3.0])}).item()
    3.0
    """

    def __init__(self, *, sides: Sides = "one") -> None:
        super().__init__("log_prob_latent", sides=sides)


@register("volume")
class Volume(Term):
    """The volume term log|det| of a flow alone; low is anomalous, or both sides (`sides="two"`).

    >>> Volume().score({"log_det": torch.tensor([-3.0])}).item()
    3.0
    """

    def __init__(self, *, sides: Sides = "one") -> None:
        super().__init__("log_det", sides=sides)


@register("typicality")
class Typicality(Rule):
    """Distance of an image's negative log-likelihood from its mean over normal images, in nats.

    The one-sample case (M = 1) of the typicality test of Nalisnick et al. 2019, "Detecting out-of-distribution
    inputs to deep generative models using typicality", eq. 4: |-log p(x) - H|.

    >>> rule = Typicality()
    >>> rule.fit({"log_prob": torch.tensor([-9.0, -11.0])})
    >>> rule.score({"log_prob": torch.tensor([-4.0, -10.0, -16.0])}).tolist()
    [6.0, 0.0, 6.0]
    """

    requires = ("log_prob",)
    needs_fit = True
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fitted_buffers("mean")

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        self.mean = statistics["log_prob"].mean()

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return (statistics["log_prob"] - self.mean).abs()
