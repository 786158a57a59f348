"""A rule of your own: how a density's statistics become a score. It never sees an image or a network.

    python examples/own_rule.py

The rule asks how far each of two terms of the likelihood, log p(z) and log|det|, lies from what normal images have: a
likelihood may look normal because two strange terms cancel.
"""

import torch
from torch import Tensor

import dracones
from dracones.detectors import evaluate
from dracones.rules import Rule, register


@register("two_terms")
class TwoTerms(Rule):
    """Squared distance of (log p(z), log|det|) from the normal images' mean, in standard deviations."""

    requires = ("log_prob_latent", "log_det")
    needs_fit = True
    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fitted_buffers("centre", "spread")

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        values = torch.stack([statistics[name] for name in self.requires])
        self.centre, self.spread = values.mean(1), values.std(1).clamp_min(1e-6)

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        values = torch.stack([statistics[name] for name in self.requires])
        return ((values - self.centre[:, None]) / self.spread[:, None]).square().sum(0)


def main() -> None:
    gravel, brick = "builtin:gravel?count=300&size=16&right=0.5", "builtin:brick?count=100&size=16"
    fresh = "builtin:gravel?count=100&size=16&left=0.5"
    options = {"epochs": 5, "density": {"steps": 2, "hidden": 16}}
    for rule in ("likelihood", "two_terms"):
        detector = dracones.create("glow", rule=rule, **options).fit(gravel)
        found = evaluate(detector, fresh, brick)
        print(f"{rule}: AUROC {found.image['auroc']['value']:.2f} of gravel against brick")


if __name__ == "__main__":
    main()
