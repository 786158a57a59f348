"""What a method answers for a batch."""

from typing import NamedTuple

from torch import Tensor


class Scores(NamedTuple):
    """Scores of one batch; larger = more anomalous. A tuple of tensors, so that graphs can return it.

    Attributes:
        image: ``[B]``.
        map: ``[B, H, W]`` at the size of the scored batch, or ``None`` where the method cannot say where.
        evidence: ``[B, W]``, what each of the method's witnesses adds to the score; ``None`` where there are none.
    """

    image: Tensor
    map: Tensor | None = None
    evidence: Tensor | None = None
