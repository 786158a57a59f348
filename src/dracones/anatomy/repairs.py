"""Which rule to use instead: every rule that the density can feed, fitted on normal images alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dracones import rules
from dracones.anatomy.estimates import auroc_estimate
from dracones.anatomy.figures import intervals, new_figure
from dracones.anatomy.finding import Finding, Row
from dracones.anatomy.needs import UnsupportedError, needs_points
from dracones.anatomy.sides import NORMAL, Sides, checked_sides, evaluating
from dracones.densities import Density
from dracones.metrics import Estimate
from dracones.report.style import legend_above

DEFAULT = "auto"
_SOURCES = {
    "background_log_prob": "a background model: fit with rule=likelihood_ratio",
    "ensemble_log_prob_mean": "an ensemble: further models trained alike",
    "ensemble_log_prob_variance": "an ensemble: further models trained alike",
    "gradient_norm": "a density with gradients: a flow",
    "intrinsic_dimension": "a flow, and time for a Jacobian an image: ask for a thorough explanation",
    "likelihood_regret": "a VAE",
    "log_det": "a flow",
    "log_prob_latent": "a flow",
}
Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Repairs(Finding):
    """AUROC of every rule on every set; nothing but normal images was used to fit any of them."""

    title: ClassVar[str] = "Which rule to use instead"
    look_for: ClassVar[str] = (
        "A row a rule, a mark a set, with its 95 % interval: right is good. Rules were fitted on normal images "
        "alone, others than those they are judged on. The default, auto, was made to need no choice; to pick "
        "another rule because it does well on these sets is to have used them."
    )

    auroc: Mapping[str, Mapping[str, Estimate]]
    """Rule to set to AUROC of its score."""
    fitted_on: int
    """Normal images that rules were fitted on."""
    judged_on: Mapping[str, int]
    """Images of each set that they are judged on."""
    not_possible: Mapping[str, str]
    """Rule to what it lacks here."""
    saved: str | None = None
    """The row of the detector as it was saved, where there is one: with the rule that scores, fitted as it was."""
    saved_fitted_on: int | None = None
    """Images that the saved rule was fitted on, none of them here."""
    loudest: Mapping[str, str] = field(default_factory=dict)
    """Set to the witness of the saved rule that speaks loudest against most of its images; empty for one voice."""

    @property
    def judged(self) -> str:
        """The row that the verdict is about: the saved rule, or the default where there is no detector."""
        return DEFAULT if self.saved is None else self.saved

    def best(self, other: str) -> str:
        """The rule with the largest AUROC on a set, of those fitted here."""
        return max((rule for rule in self.auroc if rule != self.saved), key=lambda rule: self.auroc[rule][other].value)

    def better(self, other: str) -> str | None:
        """The best rule where it is better than the judged one beyond doubt: their intervals lie apart."""
        best = self.best(other)
        return best if self.auroc[best][other].low > self.auroc[self.judged][other].high else None

    def mean(self, rule: str) -> float:
        """Mean AUROC of a rule over the sets."""
        found = self.auroc[rule].values()
        return sum(each.value for each in found) / len(found)

    def rows(self) -> list[Row]:
        """One row a rule, a column a set, best mean first."""
        ordered = sorted(self.auroc, key=self.mean, reverse=True)
        return [{"rule": rule, **self.auroc[rule], "mean": self.mean(rule)} for rule in ordered]

    def figure(self) -> Figure:
        """AUROC by rule and set."""
        ordered = sorted(self.auroc, key=self.mean, reverse=True)
        sets = list(next(iter(self.auroc.values())))
        figure, (axis,) = new_figure(height=1.0 + len(ordered) * max(0.3, 0.16 * len(sets)))
        intervals(axis, ordered, {name: [self.auroc[rule][name] for rule in ordered] for name in sets}, label="AUROC")
        axis.set_xlim(-0.02, 1.02)
        legend_above(figure, axis, columns=3)
        return figure


def repairs(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    background: Density | None = None,
    members: Sequence[Density] = (),
    own: tuple[str, Score] | None = None,
    own_fitted_on: int | None = None,
    thorough: bool = False,
    batch_size: int = 256,
) -> Repairs:
    """Fit every rule that can be fed on every other normal image, and judge it on the rest.

    Args:
        density: whose statistics the rules read.
        normal: images [N, C, H, W] in [0, 1] that the density was not trained on.
        others: name to images of the same shape.
        background: the background model, for the likelihood ratio.
        members: an ensemble, for WAIC.
        own: name and score (larger = more anomalous) of a detector as it stands, judged beside the rules.
        own_fitted_on: how many images its rule was fitted on.
        thorough: also the local intrinsic dimension, which takes a Jacobian an image.
        batch_size: images at a time.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> found = repairs(density, torch.rand(40, 1, 8, 8), {"black": torch.zeros(9, 1, 8, 8)})
        >>> found.fitted_on, found.judged_on["normal"], "auto" in found.auroc
        (20, 20, True)
    """
    sides = checked_sides(density, normal, others)
    fit_part, judged = sides.normal[0::2], Sides(sides.normal[1::2], sides.others)
    candidates, not_possible = _candidates(density, background is not None, len(members) > 1, thorough)
    wanted = tuple(dict.fromkeys(name for rule in candidates.values() for name in rule.requires))

    def gathered(images: Tensor) -> dict[str, Tensor]:
        ensemble = members if len(members) > 1 else ()
        return rules.gather(density, images, wanted, background=background, ensemble=ensemble, batch_size=batch_size)

    further = [each for each in (background, *members) if each is not None]
    with evaluating(density, *further):
        learned = gathered(fit_part)
        found = {name: gathered(images) for name, images in judged.all.items()}
    auroc = {}
    for name, rule in candidates.items():
        rule.fit(learned)
        auroc[name] = _aurocs({key: rule.score(each) for key, each in found.items()})
    if own is not None:
        with torch.no_grad():
            scored = {
                key: torch.cat([own[1](part) for part in images.split(batch_size)])
                for key, images in judged.all.items()
            }
        auroc[own[0]] = _aurocs(scored)
    counts = {name: len(images) for name, images in judged.all.items()}
    saved = None if own is None else own[0]
    return Repairs(auroc, len(fit_part), counts, not_possible, saved, own_fitted_on)


def _candidates(
    density: Density, background: bool, ensemble: bool, thorough: bool
) -> tuple[dict[str, rules.Rule], dict[str, str]]:
    """Rules that can be fed, and what the others lack."""
    available = {*density.available_statistics, *rules.image_statistics(density.image_shape)}
    available |= {f"complexity_{codec}" for codec in rules.codecs()}
    if background:
        available.add("background_log_prob")
    if ensemble:
        available |= {"ensemble_log_prob_mean", "ensemble_log_prob_variance"}
    if _has_gradients(density):
        available.add("gradient_norm")
    if thorough and hasattr(density, "decode_flat"):
        available.add("intrinsic_dimension")
    possible, lacking = {}, {}
    for name in rules.names():
        try:
            rule = rules.create_for(name, density)
        except ValueError as error:
            lacking[name] = str(error)
            continue
        missing = {_SOURCES.get(each, each) for each in rule.requires if each not in available}
        if missing:
            lacking[name] = ", ".join(sorted(missing))
        else:
            possible[name] = rule
    return possible, lacking


def _has_gradients(density: Density) -> bool:
    try:
        needs_points(density, "gradient norm")
    except UnsupportedError:
        return False
    return True


def _aurocs(scores: Mapping[str, Tensor]) -> dict[str, Estimate]:
    normal = scores[NORMAL].double().cpu().numpy()
    return {
        name: auroc_estimate(normal, values.double().cpu().numpy()) for name, values in scores.items() if name != NORMAL
    }
