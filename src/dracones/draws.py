"""Random numbers of a batch: the same for an image whichever of several processes holds it."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


class SharedGenerator(torch.Generator):
    """A generator that several processes seed alike, for batches of which each holds every `processes`-th item.

    What is drawn for a batch (`uniform`, `normal`, `levels`) is drawn for the whole of it, and this process's share is
    given: the union over the processes is what one process draws. `total` is the whole batch's number of items.

    Example:
        >>> alone = uniform((4, 2), torch.Generator().manual_seed(0))
        >>> second = SharedGenerator("cpu", rank=1, processes=2).manual_seed(0)
        >>> second.total = 4
        >>> torch.equal(uniform((2, 2), second), alone[1::2])
        True
    """

    def __new__(cls, device: torch.device | str, **_: Any) -> Self:
        """A generator on a device."""
        return super().__new__(cls, device)  # type: ignore[call-arg] # torch's stub has no constructor

    def __init__(self, device: torch.device | str, *, rank: int, processes: int) -> None:  # noqa: ARG002
        self.rank, self.processes = rank, processes
        self.total = 0

    def share(self, shape: Sequence[int], dimension: int) -> tuple[list[int], slice]:
        """The shape to draw for the whole batch, and which of its items are this process's.

        Raises:
            ValueError: a tensor that has not an item for each of this process's images.
        """
        mine = slice(self.rank, self.total, self.processes)
        expected = len(range(*mine.indices(self.total)))
        if shape[dimension] != expected:
            raise ValueError(
                f"noise of shape {tuple(shape)} was asked for a batch of which this process holds {expected} of "
                f"{self.total} images; draw it with the images along dimension {dimension}"
            )
        return [self.total if i == dimension else size for i, size in enumerate(shape)], mine


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1) on the generator's device, images along the first dimension."""
    return _drawn(torch.rand, shape, generator, 0)


def normal(shape: Sequence[int], generator: torch.Generator, *, dimension: int = 0) -> Tensor:
    """Standard normal on the generator's device, images along ``dimension``."""
    return _drawn(torch.randn, shape, generator, dimension)


def levels(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Whole numbers from 0 to 255 on the generator's device, images along the first dimension."""

    def draw(size: Sequence[int], **options: Any) -> Tensor:
        return torch.randint(0, 256, size, **options)

    return _drawn(draw, shape, generator, 0)


def _drawn(draw: Any, shape: Sequence[int], generator: torch.Generator, dimension: int) -> Tensor:
    if not isinstance(generator, SharedGenerator) or generator.processes == 1:
        alone: Tensor = draw(list(shape), generator=generator, device=generator.device)
        return alone
    whole, mine = generator.share(shape, dimension)
    drawn: Tensor = draw(whole, generator=generator, device=generator.device)
    return drawn[(slice(None),) * dimension + (mine,)]
