"""One rule for every pair: all statistics, in both directions, merged by what normal images look like."""

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dracones.images.codecs import Codec
from dracones.rules.complexity import Complexity
from dracones.rules.joint import Joint
from dracones.rules.rule import Rule, register
from dracones.rules.surprise import Surprise
from dracones.rules.tails import EmpiricalTail


@register("auto")
class Auto(Rule):
    """Merged evidence that an image's statistics are not those of normal images. No other image is needed.

    Three witnesses, each a rule of its own, fitted on normal images:
    - `joint`: the density of all statistics together; sees a shift of any of them in either direction, and pairs
      out of proportion where each statistic alone is usual;
    - `surprise`: log p(x) below what the image's own statistics (sub-bands, levels, compressed size) lead to
      expect among normal images. One-sided: two-sided tests lose where the likelihood was right already, and
      plain likelihood is wrong where the image is simple; given its simplicity it is right again;
    - `complexity`: log p(x) below what a lossless codec makes of the image (Serra et al. 2020).

    Each witness becomes a conformal p-value on normal images that its fit has not seen (two folds, swapped),
    with an exponential tail beyond the last of them; the score is minus the sum of the log p-values (Fisher's
    combination). A witness whose statistics are not among `statistics` is left out.

    References: Morningstar et al. 2021; Serra et al. 2020; Fisher 1925; Vovk 2015, "Cross-conformal predictors".

    >>> generator = torch.Generator().manual_seed(0)
    >>> complexity, noise = torch.randn(2, 400, generator=generator).double()
    >>> normal = {"log_prob": -1000 - 100 * complexity + 10 * noise, "complexity_png": 1500 + 150 * complexity}
    >>> rule = Auto(statistics=["log_prob", "complexity_png"])
    >>> rule.fit(normal)
    >>> usual, simple = rule.score({"log_prob": torch.tensor([-1000.0, -800.0]),
    ...                             "complexity_png": torch.tensor([1500.0, 600.0])})
    >>> bool(simple > 3 * usual)
    True
    """

    needs_fit = True

    def __init__(self, *, statistics: Sequence[str] = ("log_prob", "log_prob_latent", "log_det")) -> None:
        super().__init__()
        if not statistics:
            raise ValueError("auto: needs at least one statistic")
        self.requires = tuple(statistics)
        witnesses = _witnesses(self.requires)
        self.witnesses = nn.ModuleDict(witnesses)
        self.tails = nn.ModuleDict({name: EmpiricalTail() for name in witnesses})

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        count = len(statistics[self.requires[0]])
        folds = [torch.arange(start, count, 2, device=self.is_fitted.device) for start in (0, 1)]
        for name, module in self.witnesses.items():
            witness = cast(Rule, module)
            unseen = []
            for fold, other in (folds, folds[::-1]):
                if len(fold) < 2:  # too few to share: the p-values are then of seen images
                    fold = other = torch.arange(count, device=self.is_fitted.device)
                apprentice = copy.deepcopy(witness)
                apprentice.fit(_rows(statistics, fold))
                unseen.append(apprentice.score(_rows(statistics, other)))
            cast(Rule, self.tails[name]).fit({"value": torch.cat(unseen)})
            witness.fit(statistics)

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(self.evidence(statistics).values())).sum(dim=0)

    def evidence(self, statistics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Minus the log p-value [B] of each witness: which one speaks against an image, and how loud."""
        return {
            name: -cast(EmpiricalTail, self.tails[name]).log_p(witness(statistics))
            for name, witness in self.witnesses.items()
        }


def _witnesses(statistics: tuple[str, ...]) -> dict[str, Rule]:
    found: dict[str, Rule] = {"joint": Joint(statistics=statistics)}
    of_the_image = tuple(name for name in statistics if is_of_the_image(name))
    if "log_prob" in statistics and of_the_image:
        found["surprise"] = Surprise(given=of_the_image)
    best_first: tuple[Codec, ...] = ("webp", "png")
    codec = next((each for each in best_first if f"complexity_{each}" in statistics), None)
    if "log_prob" in statistics and codec is not None:
        found["complexity"] = Complexity(codec=codec)
    return found


def is_of_the_image(name: str) -> bool:
    """Whether a statistic is one of the image alone, told by its name.

    >>> is_of_the_image("subband1_diagonal"), is_of_the_image("level0_log_det")
    (True, False)
    """
    return name in _IMAGE_NAMES or name.startswith(_IMAGE_PREFIXES)


_IMAGE_PREFIXES = ("complexity_", "subband", "colour_subband")
_IMAGE_NAMES = ("brightness", "colour", "contrast", "skewness", "level_entropy", "extreme_share")


def _rows(statistics: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: values[index] for name, values in statistics.items()}
