"""One rule for every pair: all statistics, in both directions, merged by what normal images look like."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dracones.rules.mixture import Mixture
from dracones.rules.normal_scores import NormalScores
from dracones.rules.rule import Rule, register
from dracones.rules.tails import EmpiricalTail

_ONE_SIDED = ("log_prob", "log_prob_latent")


@register("auto")
class Auto(Rule):
    """Merged evidence that the statistics of an image are not those of normal images; nothing else is fitted on.

    1. Each statistic is brought to normal scores, so that no unit and no heavy tail rules (`NormalScores`).
    2. A Gaussian mixture, sized on held-out normal images, is the joint density of the scores: it notices a
       shift of any statistic in either direction, and a pair out of proportion (a likelihood too high for the
       image's complexity) where each alone is usual.
    3. Two-sided tests lose where the likelihood was right already. So the one-sided tails of log p(x) and
       log p(z) stand beside the joint density as witnesses of their own.
    4. Each witness becomes a conformal p-value on normal images that its fit has not seen, and the score is
       minus the sum of their logarithms (Fisher's combination).

    Odd-numbered images fit steps 1 and 2, even-numbered ones step 4.

    References: Morningstar et al. 2021 (density of the statistics); Serra et al. 2020 (complexity); Fisher 1925.
    """

    needs_fit = True

    def __init__(self, *, statistics: Sequence[str] = ("log_prob", "log_prob_latent", "log_det")) -> None:
        super().__init__()
        if not statistics:
            raise ValueError("auto: needs at least one statistic")
        self.requires = tuple(statistics)
        self.one_sided = tuple(name for name in _ONE_SIDED if name in self.requires)
        self.scores = NormalScores(self.requires)
        self.joint = Mixture(len(self.requires))
        self.joint_tail = EmpiricalTail()
        self.side_tails = torch.nn.ModuleDict({name: EmpiricalTail(upper=False) for name in self.one_sided})

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        fit_part = {name: values[1::2] for name, values in statistics.items()}
        tail_part = {name: values[0::2] for name, values in statistics.items()}
        if len(fit_part[self.requires[0]]) < 2:
            fit_part = tail_part = statistics
        self.scores.fit(fit_part)
        self.joint.fit_rows(self.scores.transform(fit_part))
        self.joint_tail.fit({"value": self.joint.score_rows(self.scores.transform(tail_part))})
        for name, tail in self.side_tails.items():
            tail.fit({"value": tail_part[name]})  # type: ignore[operator]

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(self.witnesses(statistics).values())).sum(dim=0)

    def witnesses(self, statistics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Minus the log p-value [B] of each witness: which one speaks against an image."""
        checked = self._checked(statistics)
        joint = self.joint.score_rows(self.scores.transform(checked))
        found = {"joint": -self.joint_tail.log_p(joint)}
        for name, tail in self.side_tails.items():
            found[name] = -tail.log_p(checked[name])  # type: ignore[operator]
        return found
