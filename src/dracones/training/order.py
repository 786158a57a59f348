"""Which items a step sees: a function of seed and step, so that a resumed run needs no saved position."""

import torch
from torch import Tensor

from dracones.training.seeds import derive_seed


class Order:
    """Shuffled batches of indices, a new permutation each epoch.

    A last batch that is not full is left out if `drop_last`, unless it is the only one. With several processes each
    takes its own share of every batch, so that the union over the processes is the batch that one process would see.

    Example:
        >>> order = Order(count=10, batch_size=4, seed=0)
        >>> order.steps_per_epoch, len(order.indices(0)), order.epoch(3)
        (2, 4, 1)
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, *, drop_last: bool = True, rank: int = 0, processes: int = 1
    ) -> None:
        if count < 1:
            raise ValueError("training needs at least one item; the dataset is empty")
        if batch_size % processes:
            raise ValueError(
                f"batch_size is shared by {processes} processes and must be a multiple of that; got {batch_size}"
            )
        if count < processes:
            raise ValueError(f"{processes} processes need at least {processes} items; the dataset has {count}")
        self.count = count
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.batch_size = min(batch_size, count // processes * processes)
        whole, rest = divmod(count, self.batch_size)
        self.steps_per_epoch = whole + (not drop_last and rest >= processes)
        self._permutation = torch.empty(0, dtype=torch.int64)
        self._permutation_epoch = -1

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def images(self, step: int) -> int:
        """How many items all processes together see at a step."""
        left = self.count - step % self.steps_per_epoch * self.batch_size
        return min(self.batch_size, left // self.processes * self.processes)

    def indices(self, step: int) -> Tensor:
        """This process's indices at a step: int64 `[b]`."""
        return self.whole(step)[self.rank :: self.processes]

    def whole(self, step: int) -> Tensor:
        """The indices of all processes together at a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._permutation_epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._permutation = torch.randperm(self.count, generator=generator)
            self._permutation_epoch = epoch
        start = place * self.batch_size
        return self._permutation[start : start + self.images(step)]
