"""One rule for every pair: all statistics, in both directions, merged by what normal images look like."""

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dracones.images.codecs import Codec
from dracones.rules.complexity import Complexity
from dracones.rules.joint import Joint
from dracones.rules.likelihood import Term
from dracones.rules.rule import Rule, register
from dracones.rules.surprise import Surprise
from dracones.rules.tails import EmpiricalTail

LAYOUT = "layout_log_prob"
"""Name of the log-density of an image's leading principal components, nats."""
EMBEDDING = "embedding_log_prob"
"""Name of the log-likelihood of an image's embedding by another network, nats."""


@register("auto")
class Auto(Rule):
    """Merged evidence that an image's statistics are not those of normal images. No other image is needed.

    The witnesses, each a rule of its own, fitted on normal images:
    - `joint`: the density of all statistics of the flow and the image together; sees a shift of any of them in either
      direction, and pairs out of proportion where each statistic alone is usual;
    - `surprise`: log p(x) below what the image's own statistics (sub-bands, levels, compressed size) lead to
      expect among normal images. One-sided: two-sided tests lose where the likelihood was right already, and
      plain likelihood is wrong where the image is simple; given its simplicity it is right again;
    - `surprise_latent`: the same of log p(z) alone. The two terms of log p(x) often move against each other, and
      their sum hides it;
    - `complexity`: log p(x) below what a lossless codec makes of the image (Serra et al. 2020);
    - `layout`: the same surprise of the leading principal components of the image, which flows nearly ignore;
    - `embedding`: a low likelihood of the image's embedding, where a network is at hand.

    Each witness becomes a conformal p-value on normal images that its fit has not seen (two folds, swapped),
    with an exponential tail beyond the last of them, and p-values are merged by the sum of their logarithms (Fisher's
    combination): first those of the pixels, to one p-value of their own on the same unseen images, so that the
    dependences between them count; then that one and the embedding's. Pixels and embedding have one say each: five
    voices that see nothing would drown one that does. A witness whose statistics are not among `statistics` is left
    out.

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
        self.tail_of_pixels = EmpiricalTail()

    @property
    def voices(self) -> tuple[str, ...]:
        """The witnesses in a reader's words, in the order of `evidence`."""
        return tuple(_WORDS[name] for name in self.witnesses)

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        unseen = {}
        for name, module in self.witnesses.items():
            witness, tail = cast(Rule, module), cast(EmpiricalTail, self.tails[name])
            scores = _unseen_scores(witness, statistics)
            tail.fit({"value": scores})
            unseen[name] = -tail.log_p(scores)
            witness.fit(statistics)
        pixels = [values for name, values in unseen.items() if name != "embedding"]
        if pixels:
            self.tail_of_pixels.fit({"value": torch.stack(pixels).sum(dim=0)})

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self.merged(self.evidence(statistics))

    def evidence(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Minus the log p-value [B] of each witness: which one speaks against an image, and how loud."""
        return {
            name: -cast(EmpiricalTail, self.tails[name]).log_p(witness(statistics))
            for name, witness in self.witnesses.items()
        }

    def merged(self, evidence: Mapping[str, Tensor]) -> Tensor:
        """The score [B]: minus the log p-value of the pixels' witnesses together, and minus the embedding's."""
        pixels = [values for name, values in evidence.items() if name != "embedding"]
        own = [-self.tail_of_pixels.log_p(torch.stack(pixels).sum(dim=0))] if pixels else []
        return torch.stack([*own, *(evidence[name] for name in evidence if name == "embedding")]).sum(dim=0)


_WORDS = {
    "joint": "all statistics together",
    "surprise": "likelihood, given its statistics",
    "surprise_latent": "latents, given its statistics",
    "complexity": "likelihood, given a codec's size",
    "layout": "layout, given its statistics",
    "embedding": "embedding",
}


def _witnesses(statistics: tuple[str, ...]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    together = tuple(name for name in statistics if name not in (LAYOUT, EMBEDDING))
    if together:
        found["joint"] = Joint(statistics=together)
    of_the_image = tuple(name for name in statistics if is_of_the_image(name))
    surprises = {"surprise": "log_prob", "surprise_latent": "log_prob_latent", "layout": LAYOUT}
    for witness, target in surprises.items():
        if target in statistics and of_the_image:
            found[witness] = Surprise(given=of_the_image, target=target)
    best_first: tuple[Codec, ...] = ("webp", "png")
    codec = next((each for each in best_first if f"complexity_{each}" in statistics), None)
    if "log_prob" in statistics and codec is not None:
        found["complexity"] = Complexity(codec=codec)
    if EMBEDDING in statistics:
        found["embedding"] = Term(EMBEDDING)
    return found


def _unseen_scores(witness: Rule, statistics: dict[str, Tensor]) -> Tensor:
    """Scores [N], in order, of normal images by witnesses fitted on the other half of them.

    Where there are too few to share, of images that were seen.
    """
    count = len(next(iter(statistics.values())))
    folds = [torch.arange(start, count, 2) for start in (0, 1)]
    scores = []
    for learnt, judged in (folds, folds[::-1]):
        apprentice = copy.deepcopy(witness)
        apprentice.fit(_rows(statistics, learnt if len(learnt) > 1 else torch.arange(count)))
        scores.append(apprentice.score(_rows(statistics, judged)))
    return torch.cat(scores)[torch.cat(folds[::-1]).argsort()]


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
