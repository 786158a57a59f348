"""What is usual of each witness's answers to good images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dracones.methods.scores import Scores
from dracones.methods.witness_weights import Standard


class WitnessScale(NamedTuple):
    """What is usual of each witness's scores and of its maps' pixels."""

    centre: Tensor
    spread: Tensor
    map_centre: Tensor
    map_spread: Tensor


class Measured:
    """What witnesses answer to good images, gathered batch by batch."""

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._means: list[Tensor] = []
        self._squares: list[Tensor] = []

    def take_in(self, answers: Sequence[Scores]) -> None:
        """A batch."""
        self._scores.append(scores_of_witnesses(answers))
        self._means.append(_per_map(answers, lambda heat: heat.mean(dim=(1, 2))))
        self._squares.append(_per_map(answers, lambda heat: heat.square().mean(dim=(1, 2))))

    def scores(self) -> Tensor:
        """Of all images `[N, W]`."""
        return torch.cat(self._scores)

    def scale(self) -> WitnessScale:
        """Means and standard deviations `[W]`."""
        standard = Standard.of(self.scores())
        mean, square = torch.cat(self._means).mean(dim=0), torch.cat(self._squares).mean(dim=0)
        return WitnessScale(*standard, mean, (square - mean.square()).clamp_min(1e-12).sqrt())


def scores_of_witnesses(answers: Sequence[Scores]) -> Tensor:
    """Image scores `[B, W]`."""
    return torch.stack([answer.image.float() for answer in answers], dim=1)


def _per_map(answers: Sequence[Scores], statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """A statistic of each image's maps `[B, W]`; zero for a witness that draws none."""
    blank = torch.zeros_like(answers[0].image)
    return torch.stack([blank if answer.map is None else statistic(answer.map) for answer in answers], dim=1)
