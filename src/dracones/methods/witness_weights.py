"""What each witness of an ensemble is worth, told from normal images alone."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dracones.metrics import auroc


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


def witness_weights(normal: Tensor, defective: Tensor) -> Tensor:
    r"""Weights `[W]`, of sum 1, from scores `[N, W]` of good images and `[M, W]` of good images with made defects.

    A witness counts by its detectability :math:`d' = \sqrt 2\, \Phi^{-1}(\mathrm{AUROC})`, the number of standard
    deviations by which defects would have to shift a Gaussian score to be told as well. For independent Gaussian
    witnesses it is the best linear weight; being of ranks, it does not care how far out a defect lies that is found
    anyway. A witness that is no better than chance is not heard; where none is, all count alike.

    >>> normal = torch.arange(5.0)[:, None].expand(5, 3)
    >>> witness_weights(normal, torch.tensor([[2.5, 1.0, 2.5], [4.5, 3.0, 4.5]]))
    tensor([0.5000, 0.0000, 0.5000])
    """
    pairs = normal.shape[0] * defective.shape[0]
    areas = [
        float(auroc(torch.cat(sides).cpu().numpy(), np.repeat([0, 1], [len(side) for side in sides])))
        for sides in zip(normal.T, defective.T, strict=True)
    ]
    # All pairs told is taken for half a pair missed, so that the number stays finite.
    told = normal.new_tensor(areas).clamp(0.5, 1 - 0.5 / pairs)
    detectability = torch.special.ndtri(told.double())
    if not bool((detectability > 0).any()):
        return torch.full_like(told, 1 / len(told))
    weights: Tensor = detectability / detectability.sum()
    return weights.to(normal.dtype)
