"""What each witness of an ensemble is worth, told from normal images alone."""

from typing import NamedTuple

import torch
from torch import Tensor


class Standard(NamedTuple):
    """The scale of normal images: what a value is among those that no fit has seen.

    Attributes:
        centre: mean.
        spread: standard deviation.
    """

    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, normal: Tensor) -> "Standard":
        """From values `[N, W]` of unseen normal images; a column that stands still has a spread of 1."""
        spread = normal.std(dim=0)
        return cls(normal.mean(dim=0), torch.where(spread > 0, spread, torch.ones_like(spread)))

    def __call__(self, values: Tensor) -> Tensor:
        """Values `[..., W]` in standard deviations of normal images."""
        return (values - self.centre) / self.spread


def witness_weights(standardised: Tensor) -> Tensor:
    """Weights `[W]`, of sum 1, from standardised scores `[M, W]` of normal images with made defects.

    A witness counts by how many standard deviations of normal images the median made defect moves it: by what it says
    in the currency of its own noise. One that does not answer to defects at all is not heard; where none answers, all
    count alike.

    >>> witness_weights(torch.tensor([[3.0, 1.0, -1.0], [3.0, 1.0, -1.0]]))
    tensor([0.7500, 0.2500, 0.0000])
    """
    shift = standardised.quantile(0.5, dim=0).clamp_min(0)
    if not bool((shift > 0).any()):
        return torch.full_like(shift, 1 / shift.shape[0])
    return shift / shift.sum()
