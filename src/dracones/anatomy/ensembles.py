"""Do several models know better than one: each member, their mean, and WAIC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dracones import rules
from dracones.anatomy.estimates import auroc_estimate, mean_estimate
from dracones.anatomy.figures import intervals, new_figure
from dracones.anatomy.finding import Finding, Row
from dracones.anatomy.sides import NORMAL, checked_sides, evaluating
from dracones.densities import Density
from dracones.metrics import Estimate
from dracones.report.style import legend_above

_MEAN, _VARIANCE = "ensemble_log_prob_mean", "ensemble_log_prob_variance"


@dataclass(frozen=True)
class Ensemble(Finding):
    """AUROCs of −log p for each member, of the ensemble's mean, of its mixture, and of WAIC."""

    title: ClassVar[str] = "An ensemble instead of one model"
    look_for: ClassVar[str] = (
        "If the members agree with each other and all lie on the wrong side of 0.5, their mean lies there too: the "
        "mistake is no accident of one training. WAIC adds the members' disagreement; it helps only where they "
        "disagree more about the other set than about the normal images."
    )

    members: tuple[Mapping[str, Estimate], ...]
    """Per member: set to AUROC."""
    mean: Mapping[str, Estimate]
    mixture: Mapping[str, Estimate]
    """Of the mixture of the members, log (1/k) Σ p."""
    waic: Mapping[str, Estimate]
    disagreement: Mapping[str, Estimate]
    """Deviation of log p among the members, nats per image; mean over the images of each set."""

    def rows(self) -> list[Row]:
        """One row an other set."""
        return [
            {
                "set": name,
                **{f"member {index + 1}": found[name] for index, found in enumerate(self.members)},
                "mean": self.mean[name],
                "mixture": self.mixture[name],
                "WAIC": self.waic[name],
                "disagreement, normal (nats)": self.disagreement[NORMAL],
                "disagreement, this set (nats)": self.disagreement[name],
            }
            for name in self.mean
        ]

    def figure(self) -> Figure:
        """AUROC of the members and of what they make together."""
        names = [*(f"member {index + 1}" for index in range(len(self.members))), "mean", "mixture", "WAIC"]
        each = (*self.members, self.mean, self.mixture, self.waic)
        figure, (axis,) = new_figure(height=1.0 + 0.3 * len(names))
        series = {name: [found[name] for found in each] for name in self.mean}
        intervals(axis, names, series, label="AUROC of the score")
        axis.set_xlim(-0.02, 1.02)
        legend_above(figure, axis, columns=3)
        return figure


def ensemble(
    members: Sequence[Density], normal: Tensor, others: Mapping[str, Tensor], *, batch_size: int = 256
) -> Ensemble:
    """Compare densities trained alike from different seeds with what they say together.

    WAIC here is E[log p] − Var[log p] over the members, nats and squared nats added as published.

    Args:
        members: at least two densities of one image shape.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        batch_size: images at a time.

    Raises:
        ValueError: fewer than two members, or members of different shapes.

    Reference:
        Nalisnick et al. (2019), appendix (ensembles of Glows); Choi, Jang, Alemi (2018), "WAIC, but Why?", eq. 2.

    Example:
        >>> from dracones import densities
        >>> members = [densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4, seed=s) for s in (0, 1)]
        >>> found = ensemble(members, torch.rand(9, 1, 8, 8), {"black": torch.zeros(9, 1, 8, 8)})
        >>> len(found.members)
        2
    """
    if len(members) < 2:
        raise ValueError(f"ensemble: expected at least 2 densities, got {len(members)}")
    shapes = {member.image_shape for member in members}
    if len(shapes) > 1:
        raise ValueError(f"ensemble: the members take images of different shapes, {sorted(shapes)}")
    sides = checked_sides(members[0], normal, others)
    log_prob: dict[str, np.ndarray] = {}
    with evaluating(*members):
        for name, images in sides.all.items():
            each = [rules.gather(member, images, ["log_prob"], batch_size=batch_size)["log_prob"] for member in members]
            log_prob[name] = np.stack([values.numpy() for values in each])
    waic = rules.create("waic")
    scores = {
        "mean": {name: -each.mean(0) for name, each in log_prob.items()},
        "mixture": {name: np.log(len(members)) - np.logaddexp.reduce(each) for name, each in log_prob.items()},
        "waic": {name: _waic(waic, each) for name, each in log_prob.items()},
    }
    each_member = [{name: -each[index] for name, each in log_prob.items()} for index in range(len(members))]
    return Ensemble(
        tuple(_aurocs(each) for each in each_member),
        _aurocs(scores["mean"]),
        _aurocs(scores["mixture"]),
        _aurocs(scores["waic"]),
        {name: mean_estimate(each.std(0)) for name, each in log_prob.items()},
    )


def _aurocs(scores: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    return {name: auroc_estimate(scores[NORMAL], found) for name, found in scores.items() if name != NORMAL}


def _waic(rule: rules.Rule, each: np.ndarray) -> np.ndarray:
    statistics = {_MEAN: torch.from_numpy(each.mean(0)), _VARIANCE: torch.from_numpy(each.var(0))}
    return rule.score(statistics).numpy()
