"""The one loop that all training goes through."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dracones.training.batches import Batches, move
from dracones.training.config import TrainingConfig
from dracones.training.interrupt import Interruption, interruption
from dracones.training.order import Order
from dracones.training.outcome import TrainingReport
from dracones.training.position import Position
from dracones.training.progress import Progress, Silent
from dracones.training.resume import Run, read_run, write_run
from dracones.training.seeds import derive_seed, preserved_randomness
from dracones.training.step import Loss, Stepper
from dracones.training.world import World

# Data in memory moves to the GPU once where it takes no more than this share of what is free there.
_RESIDENT_SHARE = 0.25


def train(
    module: nn.Module,
    batches: Any,
    config: TrainingConfig | None = None,
    *,
    validation: Any = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    loss: Loss | None = None,
) -> TrainingReport:
    """Minimise a module's `training_loss(batch, generator=...)` over a dataset, in place.

    Args:
        module: gives a scalar loss for a batch; its parameters that require a gradient are trained. Parts that are
            wholly frozen and in eval mode stay in eval mode. It ends in eval mode, on the device it was trained on.
        batches: what to train on: a tensor, tensors of one length, a `TensorDataset`, an object with
            `batch(indices)`, or any map-style dataset. Augmentation belongs to the dataset: the global generators are
            seeded from (seed, step, item) while an item is read.
        config: how to train; see `TrainingConfig`.
        validation: held-out data, read the same way, scored in eval mode without gradients and with the same noise
            each time. With it, training may stop early, and ends with the best weights.
        checkpoint: a file, written atomically during the run. If it exists the run is taken up from it and ends, on a
            CPU, with the bits of an undisturbed one; one of another configuration, module or dataset is refused.
        progress: told of every step.
        loss: stands in for `module.training_loss`, called as `loss(module, batch, generator)`.

    Everything random is drawn from `config.seed`; the global generators of PyTorch, NumPy and Python are left as found.

    Ctrl-C ends the run after the step it falls into, written to `checkpoint` if there is one; a second one at once.

    A step whose loss or gradient is not finite is undone and counted in `skipped_steps`; `config.max_nonfinite` of them
    in a row raise `NonFiniteError`, which names the layer they come from.

    Example:
        >>> class Mean(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.at = nn.Parameter(torch.zeros(1))
        ...     def training_loss(self, batch, *, generator=None):
        ...         return ((batch - self.at) ** 2).mean()
        >>> module = Mean()
        >>> report = train(module, torch.full((64, 1), 3.0), TrainingConfig(epochs=50, learning_rate=0.1, device="cpu"))
        >>> report.steps, round(module.at.item(), 1)
        (100, 3.0)
    """
    config = config or TrainingConfig()
    world = World(config.device)
    with _threads(config.threads), preserved_randomness(world.device):
        stepper = Stepper(module.to(world.device), config, world, loss)
        loop = _Loop(
            stepper, Batches(batches), None if validation is None else Batches(validation), progress or Silent()
        )
        if checkpoint is not None:
            loop.attach(Path(checkpoint))
        return loop.run()


class _Loop:
    def __init__(self, stepper: Stepper, data: Batches, held_out: Batches | None, progress: Progress) -> None:
        self.stepper, self.data, self.held_out = stepper, data, held_out
        # One of several processes speaks for all.
        self.progress = progress if stepper.world.is_main else Silent()
        self.config, self.world, self.module = stepper.config, stepper.world, stepper.module
        if held_out is not None and held_out.count == 0:
            raise ValueError("the validation data are empty: pass none, or at least one item")
        self.order = Order(
            data.count,
            self.config.batch_size,
            self.config.seed,
            drop_last=self.config.drop_last,
            rank=self.world.rank,
            processes=self.world.processes,
        )
        self.total_steps = self.config.total_steps(self.order.steps_per_epoch)
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.on_disk: Run | None = None
        self.resumed_from: int | None = None
        self.failed_checkpoints = 0

    def attach(self, path: Path) -> None:
        """Keep the run in a file, and take it up from there if the file exists."""
        held_out = None if self.held_out is None else self.held_out.fingerprint()
        stepper = self.stepper
        self.on_disk = Run(
            path, self.config, self.module, stepper.optimizer, stepper.average, self.data.fingerprint(), held_out
        )
        if path.exists():
            self.position, self.best = read_run(self.on_disk)
            self.resumed_from = self.position.step
        elif self.world.is_main:
            path.parent.mkdir(parents=True, exist_ok=True)
        # Nobody may write before everybody has read.
        self.world.wait()

    def run(self) -> TrainingReport:
        if self.world.device.type == "cuda":
            self.data.keep_on(self.world.device, _RESIDENT_SHARE)
        self.seconds_before = self.position.seconds
        self.started = time.monotonic() - self.seconds_before
        self.last_checkpoint = time.monotonic()
        self.stepper.train_mode()
        self.progress.start(self.total_steps, "training")
        try:
            self.progress.advance(self.position.step)
            if self.position.stopped_by is None:
                whole = self.data.stream(self._plan(self.order.whole))
                self.stepper.distribute(whole, self._share_of, self.position.step)
                with interruption() as interrupted:
                    self._steps(interrupted)
        finally:
            self.progress.finish()
        return self._finish()

    def _steps(self, interrupted: Interruption) -> None:
        position = self.position
        plan, pin = self._plan(self.order.indices), self.world.device.type == "cuda"
        stream = self.data.stream(plan, workers=self.config.workers, pin=pin)
        if self.config.validate_start and self.held_out is not None and not position.history:
            self._take_reading()
        while not self._over():
            batch = move(next(stream), self.world.device)
            images = self.order.images(position.step)
            loss = self.stepper.make(batch, position, share=self._share(), images=images, started=self.started)
            self._tell(loss)
            if position.step % (self.config.validate_steps or self.order.steps_per_epoch) == 0:
                self._take_reading()
            if interrupted.asked:
                self._interrupt()
            if self._checkpoint_due():
                self._checkpoint()
        out_of_time = position.stopped_by == "max_seconds"
        if out_of_time:
            # More time may be given later: the run is kept as it stands, before the reading that its end calls for.
            position.stopped_by = None
            self._checkpoint()
            position.stopped_by = "max_seconds"
        if not position.history or position.history[-1].step != position.step:
            self._take_reading()
        if not out_of_time:
            self._checkpoint()

    def _interrupt(self) -> None:
        """End here, with the steps made so far on disk where the run is kept.

        Raises:
            KeyboardInterrupt: always; its message says what was kept.
        """
        self._checkpoint()
        where = f"step {self.position.step} of {self.total_steps or 'a run by the clock'}"
        if self.on_disk is None or self.failed_checkpoints:
            raise KeyboardInterrupt(f"stopped at {where}; nothing was kept")
        raise KeyboardInterrupt(f"stopped at {where}; the same again goes on from there ({self.on_disk.path})")

    def _plan(self, indices: Callable[[int], Tensor]) -> Iterator[tuple[Tensor, int]]:
        step = self.position.step
        while self.total_steps is None or step < self.total_steps:
            yield indices(step), derive_seed(self.config.seed, "data", step)
            step += 1

    def _share_of(self, step: int) -> Any:
        return self.data.read(self.order.indices(step), derive_seed(self.config.seed, "data", step))

    def _share(self) -> float:
        """How much of the run is done: by steps where their number is known, else by the clock."""
        if self.total_steps is not None:
            return self.position.step / self.total_steps
        return min(self.position.seconds / (self.config.max_seconds or float("inf")), 1.0)

    def _over(self) -> bool:
        config, position = self.config, self.position
        if position.stopped_by is None:
            if self.total_steps is not None and position.step >= self.total_steps:
                position.stopped_by = "max_steps" if position.step == config.max_steps else "epochs"
            elif config.max_seconds is not None and position.seconds >= config.max_seconds:
                position.stopped_by = "max_seconds"
        return position.stopped_by is not None

    def _take_reading(self) -> None:
        position = self.position
        loss = None if self.held_out is None else self.stepper.validate(self.held_out, self.order.batch_size)
        position.seconds = self.world.from_main(time.monotonic() - self.started)
        position.read(self.order.epoch(max(position.step - 1, 0)), loss)
        if loss is None:
            return
        self.progress.advance(0, validation_loss=loss)
        if position.improved(loss, self.config.min_improvement):
            self._keep_best()
        elif self.config.patience is not None and position.without_improvement >= self.config.patience:
            position.stopped_by = position.stopped_by or "patience"

    def _keep_best(self) -> None:
        if self.config.restore_best:
            with self.stepper.averaged():
                self.best = {key: value.detach().clone() for key, value in self.module.state_dict().items()}

    def _tell(self, loss: float) -> None:
        position = self.position
        steps = position.step - (self.resumed_from or 0)
        spent = max(position.seconds - self.seconds_before, 1e-9)
        left = [] if self.config.max_seconds is None else [self.config.max_seconds - position.seconds]
        if self.total_steps is not None:
            left.append((self.total_steps - position.step) * spent / steps)
        self.progress.advance(
            1,
            loss=loss,
            images_per_second=steps * self.order.batch_size / spent,
            seconds_left=min(left),
            skipped_steps=position.skipped_steps,
        )

    def _checkpoint_due(self) -> bool:
        if self.config.checkpoint_steps is not None:
            return self.position.step % self.config.checkpoint_steps == 0
        return time.monotonic() - self.last_checkpoint >= self.config.checkpoint_seconds

    def _checkpoint(self) -> None:
        self.last_checkpoint = time.monotonic()
        if self.on_disk is None or not self.world.is_main:
            return
        try:
            write_run(self.on_disk, self.position, self.best)
        except OSError as error:
            # Hours of training are worth more than their checkpoint: go on, say so, try again next time.
            self.failed_checkpoints += 1
            warnings.warn(f"checkpoint not written, training goes on: {error}", RuntimeWarning, stacklevel=2)

    def _finish(self) -> TrainingReport:
        position, average = self.position, self.stepper.average
        if self.best:
            self.module.load_state_dict(self.best)
        elif average is not None:
            average.keep()
        self.module.eval()
        return TrainingReport(
            steps=position.step,
            epochs=position.step / self.order.steps_per_epoch,
            images=position.images,
            seconds=position.seconds,
            stopped_by=position.stopped_by or "epochs",
            history=tuple(position.history),
            skipped_steps=position.skipped_steps,
            best_step=position.best_step,
            best_validation_loss=position.best_loss,
            resumed_from=self.resumed_from,
            failed_checkpoints=self.failed_checkpoints,
            device=str(self.world.device),
            processes=self.world.processes,
        )


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
