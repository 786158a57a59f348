"""What each witness of an ensemble is worth, told from normal images alone."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import ndtri
from torch import Tensor
from torch.nn.functional import softplus

from dracones.metrics import auroc

_LEAST_DRAWN = 0.02
"""Witnesses that always agree would leave no one answer: they share."""


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


def loudness(standard: Tensor) -> Tensor:
    """What witnesses say against an image, from values in standard deviations: a calm one says next to nothing.

    >>> loudness(torch.tensor([-3.0, 0.0, 3.0]))
    tensor([1.2378e-03, 3.4657e-01, 3.0012e+00])
    """
    return softplus(standard, beta=2)


def witness_weights(normal: Tensor, defective: Tensor) -> Tensor:
    r"""Weights `[W]`, of sum 1, from scores `[N, W]` of good images and `[M, W]` of good images with made defects.

    What a witness tells is its detectability :math:`d' = \sqrt 2\, \Phi^{-1}(\mathrm{AUROC})`, the number of standard
    deviations by which defects would have to shift a Gaussian score to be told as well; being of ranks, it does not
    care how far out a defect lies that is found anyway. For witnesses that err independently the best linear weights
    are :math:`d'` itself. What two of them say of good images alike is noise that a sum does not average out; with the
    correlation :math:`\Sigma` of good images' scores the best are Fisher's (1936), :math:`\Sigma^{-1} d'`, none
    negative. But made defects are not the line's: both kinds underrate whom real ones would speak for, Fisher's to
    silence, and equal weights, which trust no estimate, are hard to beat when forecasts are combined (Diebold and Pauly
    1990 draw towards them). Each of the three has a third of the say. A witness that is no better than chance is not
    heard; where none is, all count alike.

    >>> normal = torch.arange(5.0)[:, None].expand(5, 3)
    >>> witness_weights(normal, torch.tensor([[2.5, 1.0, 2.5], [4.5, 3.0, 4.5]]))
    tensor([0.5000, 0.0000, 0.5000])
    """
    told = _detectabilities(normal, defective)
    heard = np.flatnonzero(told > 0)
    if not len(heard):
        return torch.full((len(told),), 1 / len(told), dtype=normal.dtype, device=normal.device)
    # The weights of the largest shift in standard deviations of the sum, none negative: a least-squares problem.
    root = np.linalg.cholesky(_correlation(normal[:, heard.tolist()]))
    solved, _ = nnls(root.T, np.linalg.solve(root, told[heard]))
    weights = told / told.sum()
    weights[heard] += solved / solved.sum() + 1 / len(heard)
    weights /= 3
    return torch.from_numpy(weights).to(normal)


def _detectabilities(normal: Tensor, defective: Tensor) -> NDArray[np.float64]:
    """Of each witness, 0 for chance."""
    truth = np.repeat([0, 1], [len(normal), len(defective)])
    scores = torch.cat([normal, defective]).double().cpu().numpy()
    # All pairs told is taken for half a pair missed, so that the number stays finite.
    most = 1 - 0.5 / (len(normal) * len(defective))
    return np.array([np.sqrt(2) * ndtri(np.clip(float(auroc(each, truth)), 0.5, most)) for each in scores.T])


def _correlation(normal: Tensor) -> NDArray[np.float64]:
    """Of scores `[N, W]`, drawn to none as far as so few images call for it (Schäfer and Strimmer 2005)."""
    count, width = normal.shape
    scores = normal.double().cpu().numpy()
    spread = scores.std(axis=0)
    scaled = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1)
    found = scaled.T @ scaled / count
    others = ~np.eye(width, dtype=bool)
    size = np.square(found[others]).sum()
    doubt = np.square(1 - np.square(found[others])).sum() / max(1, count - 1)
    share = np.clip(doubt / size, _LEAST_DRAWN, 1) if size > 0 else 1.0
    return np.where(others, (1 - share) * found, 1.0)
