"""One step: seeded, made or undone as a whole, agreed upon by all processes."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dracones.draws import SharedGenerator
from dracones.training.averaging import Average
from dracones.training.batches import Batches, leaves, move
from dracones.training.config import TrainingConfig
from dracones.training.guard import NonFiniteError, Rollback, where_nonfinite
from dracones.training.optimizers import learning_rate_factor, make_optimizer
from dracones.training.position import Position
from dracones.training.seeds import derive_seed, seed_torch
from dracones.training.world import World

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]


class LossModule(nn.Module):
    """A module whose forward pass is its loss, which is what several processes can share."""

    def __init__(self, module: nn.Module, loss: Loss | None) -> None:
        super().__init__()
        if loss is None and not callable(getattr(module, "training_loss", None)):
            raise TypeError(f"{type(module).__name__} has no training_loss(batch, generator=...); pass loss=")
        self.module = module
        self.loss = loss

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        """The loss of a batch: a scalar."""
        if self.loss is not None:
            return self.loss(self.module, batch, generator)
        training_loss: Callable[..., Tensor] = self.module.training_loss  # type: ignore[assignment]
        return training_loss(batch, generator=generator)


class Stepper:
    """Makes the steps of a run on one module."""

    def __init__(self, module: nn.Module, config: TrainingConfig, world: World, loss: Loss | None) -> None:
        self.module, self.config, self.world = module, config, world
        self.loss_module = LossModule(module, loss)
        self._shared_loss: nn.Module = self.loss_module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(module).__name__} has no parameter that requires a gradient: nothing to train")
        self.optimizer = make_optimizer(self.parameters, config)
        self.average = Average(module, config.average) if config.average is not None else None
        self._rollback = Rollback(module)
        self._generator = SharedGenerator(world.device, rank=world.rank, processes=world.processes)
        self._frozen = _frozen_in_eval(module)

    def train_mode(self) -> None:
        """Train mode, but for the parts that were frozen and in eval mode at the start."""
        self.module.train()
        for part in self._frozen:
            part.eval()

    def averaged(self) -> AbstractContextManager[None]:
        """The module with the weights that count: their moving average, where there is one."""
        return self.average.applied() if self.average is not None else nullcontext()

    def make(self, batch: Any, position: Position, *, share: float, images: int, started: float) -> float:
        """Make a step, count it in the position, give its loss.

        Args:
            batch: this process's share, on its device.
            position: the run's counters; its `step` is that of this step until the call is over.
            share: how much of the run is done, in [0, 1]: what the learning rate follows.
            images: in the batch of all processes.
            started: when the run would have begun on `time.monotonic()` had it never been interrupted.

        Raises:
            NonFiniteError: too many steps in a row were not finite.
            ValueError: the loss is no scalar, or no trained parameter has a part in it.
        """
        self._rollback.remember()
        loss = self._loss(self._shared_loss, batch, position.step, total=images)
        _check_loss(loss)
        self._rollback.watch()
        loss.backward()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            raise ValueError("the training loss reaches no parameter: every gradient is missing")
        gradient_norm = get_total_norm(gradients)
        (value, norm), position.seconds = self.world.agree(loss, gradient_norm, clock=time.monotonic() - started)
        position.images += images
        if abs(value) < float("inf") and norm < float("inf"):
            if self.config.clip_norm is not None:
                clip_grads_with_norm_(self.parameters, self.config.clip_norm, gradient_norm)
            self._apply(position, share)
            position.applied(value)
        else:
            self._rollback.restore()
            position.skipped()
        self.optimizer.zero_grad(set_to_none=True)
        if position.consecutive_skipped >= self.config.max_nonfinite:
            raise NonFiniteError(self._explain(batch, position))
        position.step += 1
        return value

    @torch.no_grad()
    def validate(self, held_out: Batches, batch_size: int) -> float:
        """Mean loss per item of held-out data, in eval mode, with the same noise at every call."""
        self.module.eval()
        root = derive_seed(self.config.seed, "validation")
        summed = counted = 0.0
        with self.averaged():
            for start in range(0, held_out.count, batch_size):
                # Strided, so that each process has its share of every batch, and all see every item once.
                stop = min(start + batch_size, held_out.count)
                mine = torch.arange(start + self.world.rank, stop, self.world.processes)
                if len(mine) == 0:
                    continue
                batch = move(held_out.read(mine, derive_seed(root, start)), self.world.device)
                loss = self._loss(self.loss_module, batch, "validation", start, total=stop - start)
                summed += float(loss) * len(mine)
                counted += len(mine)
        self.train_mode()
        summed, counted = self.world.total(summed, counted)
        return summed / counted

    def distribute(self, whole: Iterable[Any], batch: Callable[[int], Any], step: int) -> None:
        """Share the module among the processes of the run, where there are several.

        Args:
            whole: the batches to come, each with the images of all processes.
            batch: this process's share of a step's.
            step: the first to come.
        """
        if self.world.processes == 1:
            return
        # Layers that initialise themselves from their first batch (ActNorm) do so from all of it, with the noise that
        # one process alone would draw, and so alike in every process.
        for tried, images in enumerate(whole, 1):
            self._rollback.remember()
            with torch.no_grad():
                loss = self._loss(self.loss_module, move(images, self.world.device), step + tried - 1, alone=True)
            (value,), _ = self.world.agree(loss, clock=0.0)
            if abs(value) < float("inf"):
                break
            self._rollback.restore()
            if tried == self.config.max_nonfinite:
                raise NonFiniteError(f"the first {tried} batches all give a non-finite loss")
        # A parameter that no gradient reaches must be known to be one.
        mine = move(batch(step + tried - 1), self.world.device)
        self._loss(self.loss_module, mine, step + tried - 1, total=self.world.processes * _length(mine)).backward()
        unused = float(any(parameter.grad is None for parameter in self.parameters))
        self.optimizer.zero_grad(set_to_none=True)
        self._shared_loss = self.world.distribute(self.loss_module, find_unused=self.world.total(unused)[0] > 0)

    def _loss(
        self, loss_module: nn.Module, batch: Any, *what: int | str, total: int = 0, alone: bool = False
    ) -> Tensor:
        """The loss of this process's share of a batch of `total`; or, `alone`, of a batch that is held whole."""
        world = self.world
        self._generator.rank, self._generator.processes = (0, 1) if alone else (world.rank, world.processes)
        self._generator.total = total
        # All processes seed alike, and each image gets the noise that it would get in one; dropout differs by process.
        self._generator.manual_seed(derive_seed(self.config.seed, "noise", *what, 0))
        seed_torch(derive_seed(self.config.seed, "noise", *what, world.rank), world.device)
        reduced = self.config.precision == "bf16"
        with torch.autocast(self.world.device.type, dtype=torch.bfloat16) if reduced else nullcontext():
            loss: Tensor = loss_module(batch, self._generator)
            return loss

    def _apply(self, position: Position, share: float) -> None:
        position.learning_rate = self.config.learning_rate * learning_rate_factor(self.config, share, position.step)
        for group in self.optimizer.param_groups:
            group["lr"] = position.learning_rate
        self.optimizer.step()
        if self.average is not None:
            self.average.update()

    def _explain(self, batch: Any, position: Position) -> str:
        self._rollback.remember()
        total = self.world.processes * _length(batch)
        where = where_nonfinite(
            self.module, batch, lambda: self._loss(self.loss_module, batch, position.step, total=total)
        )
        self._rollback.restore()
        return (
            f"{position.consecutive_skipped} steps in a row had a non-finite loss or gradient (step {position.step}, "
            f"{position.skipped_steps} skipped in all): {where}. None of them was applied. "
            "A smaller learning_rate, clip_norm or warmup is the usual remedy"
        )


def _length(batch: Any) -> int:
    """Items in a batch: of its first tensor."""
    first = next(leaves(batch))
    return len(first) if isinstance(first, Tensor) else 0


def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        given = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"the training loss must be a scalar tensor; got {given}")
    if not loss.requires_grad:
        raise ValueError("the training loss carries no gradient: it does not depend on a trained parameter")


def _frozen_in_eval(module: nn.Module) -> list[nn.Module]:
    """Parts in eval mode whose parameters are all frozen: a backbone whose running means must not move."""
    return [
        part
        for part in module.modules()
        if not part.training
        and any(True for _ in part.parameters())
        and not any(parameter.requires_grad for parameter in part.parameters())
    ]
