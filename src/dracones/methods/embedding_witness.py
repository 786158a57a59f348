"""The likelihood of an image's embedding, beside a density of its pixels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dracones.features import EnlargedExtractor
from dracones.methods.feature_flows.embedding_flow import EmbeddingFlow

_SIDE = 96
"""Below that the stride of 16 leaves fewer than six by six places to average over; 64 told less (a cost of half)."""
_LEVELS = (2, 3)


class EmbeddingWitness(EmbeddingFlow):
    """The Gaussian of the pooled maps of a frozen backbone, levels 2 and 3 (strides 8 and 16); nothing is trained.

    Images smaller than 96 pixels are enlarged, all of them alike. A network that has seen ImageNet brings another kind
    of knowledge than a density of pixels has: what is in a picture, not how its pixels go together.
    """

    side: Tensor

    def __init__(self, *, backbone: str, weights: str, seed: int) -> None:
        options: dict[str, Any] = {"backbone": backbone, "weights": weights, "seed": seed}
        super().__init__(levels=_LEVELS, couplings=0, **options)

    def build_on(self, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> None:
        """The Gaussian; and the size at which the network sees small images, which goes with it into the file."""
        super().build_on(channels, sizes)
        self.register_buffer("side", torch.tensor(_SIDE))

    def make_extractor(self, channels: int) -> EnlargedExtractor:
        """The backbone, which sees small images enlarged."""
        return EnlargedExtractor(self.make_backbone(channels), _SIDE)

    def restore(self, extras: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Take over a saved state, and enlarge as it did."""
        super().restore(extras, state)
        self.extractor.side = int(state["side"])
