"""The likelihood of an image's embedding, beside a density of its pixels."""

from typing import Any

from dracones.features import EnlargedExtractor
from dracones.methods.feature_flows.embedding_flow import EmbeddingFlow

_SIDE = 64
"""Below that the stride of 16 leaves fewer than four by four places to average over."""
_LEVELS = (2, 3)


class EmbeddingWitness(EmbeddingFlow):
    """The Gaussian of the pooled maps of a frozen backbone, levels 2 and 3 (strides 8 and 16); nothing is trained.

    Images smaller than 64 pixels are enlarged, all of them alike. A network that has seen ImageNet brings another kind
    of knowledge than a density of pixels has: what is in a picture, not how its pixels go together.
    """

    def __init__(self, *, backbone: str, weights: str, seed: int) -> None:
        options: dict[str, Any] = {"backbone": backbone, "weights": weights, "seed": seed}
        super().__init__(levels=_LEVELS, couplings=0, **options)

    def make_extractor(self, channels: int) -> EnlargedExtractor:
        """The backbone, which sees small images enlarged."""
        return EnlargedExtractor(self.make_backbone(channels), _SIDE)
