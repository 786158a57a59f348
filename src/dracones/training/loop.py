"""The one loop that all training goes through."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dracones.training.averaging import Average
from dracones.training.batches import Batches, move
from dracones.training.config import TrainingConfig
from dracones.training.guard import NonFiniteError, Rollback, where_nonfinite
from dracones.training.optimizers import clip_gradients, gradient_norm, learning_rate_factor, make_optimizer
from dracones.training.order import Order
from dracones.training.outcome import TrainingReport
from dracones.training.position import Position
from dracones.training.progress import Progress, Silent
from dracones.training.resume import Run, read_run, write_run
from dracones.training.seeds import derive_seed, preserved_randomness, seed_torch
from dracones.training.world import World

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]
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
        loop = _Loop(module, batches, config, validation, checkpoint, progress or Silent(), loss, world)
        return loop.run()


class _LossModule(nn.Module):
    """A module whose forward pass is a loss, which is what several processes can share."""

    def __init__(self, module: nn.Module, loss: Loss | None) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        if self.loss is not None:
            return self.loss(self.module, batch, generator)
        return self.module.training_loss(batch, generator=generator)  # type: ignore[operator]


class _Loop:
    def __init__(
        self,
        module: nn.Module,
        batches: Any,
        config: TrainingConfig,
        validation: Any,
        checkpoint: str | Path | None,
        progress: Progress,
        loss: Loss | None,
        world: World,
    ) -> None:
        if loss is None and not callable(getattr(module, "training_loss", None)):
            raise TypeError(f"{type(module).__name__} has no training_loss(batch, generator=...); pass loss=")
        self.config, self.world, self.progress = config, world, progress
        self.module = module.to(world.device)
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(module).__name__} has no parameter that requires a gradient: nothing to train")
        self.data = Batches(batches)
        self.order = Order(
            self.data.count, config.batch_size, config.seed,
            drop_last=config.drop_last, rank=world.rank, processes=world.processes,
        )  # fmt: skip
        self.validation = None if validation is None else Batches(validation)
        self.total_steps = config.total_steps(self.order.steps_per_epoch)
        self.frozen = _frozen_in_eval(module)
        self.optimizer = make_optimizer(self.parameters, config)
        self.average = Average(module, config.average) if config.average is not None else None
        self.best: dict[str, Tensor] = {}
        self.position = Position()
        self.run_on_disk = None if checkpoint is None else self._open_run(Path(checkpoint))
        self.loss_module = _LossModule(module, loss)
        self.generator = torch.Generator(world.device)
        self.rollback = Rollback(module)
        self.failed_checkpoints = 0
        self._keep_data_on_device()

    def run(self) -> TrainingReport:
        self._train_mode()
        self.shared_loss = self._distribute()
        self.started = time.monotonic() - self.position.seconds
        self.last_checkpoint = time.monotonic()
        self.resumed_from = self.position.step if self.position.resumed else None
        self.progress.start(self.total_steps, "training")
        try:
            if self.position.resumed:
                self.progress.advance(self.position.step)
            self._steps()
        finally:
            self.progress.finish()
        return self._finish()

    # ---- steps

    def _steps(self) -> None:
        position = self.position
        plan = ((self.order.indices(step), self._seed("data", step)) for step in self._step_numbers())
        stream = self.data.stream(plan, workers=self.config.workers, pin=self.world.device.type == "cuda")
        while position.stopped_by is None:
            position.stopped_by = self._limit_reached()
            if position.stopped_by is not None:
                self._take_reading()
                self._checkpoint()
                break
            batch = move(next(stream), self.world.device)
            loss = self._step(batch)
            position.step += 1
            self._tell(loss)
            if self._reading_due():
                self._take_reading()
            if position.stopped_by is not None or self._checkpoint_due():
                self._checkpoint()

    def _step_numbers(self) -> Iterator[int]:
        step = self.position.step
        while self.total_steps is None or step < self.total_steps:
            yield step
            step += 1

    def _step(self, batch: Any) -> float:
        position = self.position
        self._seed_step()
        self.rollback.remember()
        with self._autocast():
            loss = self.shared_loss(batch, self.generator)
        self._check_loss(loss)
        self.rollback.watch()
        self.world.backward(loss)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if not gradients:
            raise ValueError("the training loss reaches no parameter: every gradient is missing")
        clock = (time.monotonic() - self.started) * self.world.processes if self.world.is_main else 0.0
        value, norm, seconds = self.world.agree(loss, gradient_norm(gradients), torch.tensor(clock, device=loss.device))
        position.seconds = seconds
        position.images += self._batch_images()
        if abs(value) < float("inf") and norm < float("inf"):
            self._apply(gradients, norm)
            position.applied(value)
        else:
            self.rollback.restore()
            position.skipped()
        self.optimizer.zero_grad(set_to_none=True)
        if position.consecutive_skipped >= self.config.max_nonfinite:
            raise NonFiniteError(self._explain(batch))
        return value

    def _apply(self, gradients: list[Tensor], norm: float) -> None:
        if self.config.clip_norm is not None:
            clip_gradients(gradients, norm, self.config.clip_norm)
        rate = self.config.learning_rate * learning_rate_factor(self.config, self._share(), self.position.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.position.learning_rate = rate
        self.optimizer.step()
        if self.average is not None:
            self.average.update()

    def _seed_step(self) -> None:
        seed = self._seed("step", self.position.step, self.world.rank)
        self.generator.manual_seed(seed)
        seed_torch(seed, self.world.device)

    def _seed(self, *parts: int | str) -> int:
        return derive_seed(self.config.seed, *parts)

    def _share(self) -> float:
        if self.total_steps is not None:
            return self.position.step / self.total_steps
        return min(self.position.seconds / (self.config.max_seconds or 1.0), 1.0)

    def _batch_images(self) -> int:
        place = self.position.step % self.order.steps_per_epoch
        left = self.order.count - place * self.order.batch_size
        return min(self.order.batch_size, left // self.order.processes * self.order.processes)

    def _autocast(self) -> Any:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16)

    def _check_loss(self, loss: Any) -> None:
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            shape = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the training loss must be a scalar tensor; got {shape}")
        if not loss.requires_grad:
            raise ValueError("the training loss carries no gradient: it does not depend on a trained parameter")

    def _explain(self, batch: Any) -> str:
        def again() -> Tensor:
            self._seed_step()
            with self._autocast():
                return self.loss_module(batch, self.generator)

        where = where_nonfinite(self.module, batch, again)
        return (
            f"{self.position.consecutive_skipped} steps in a row had a non-finite loss or gradient (step "
            f"{self.position.step}, {self.position.skipped_steps} skipped in all): {where}. None of them was applied. "
            "A smaller learning_rate, clip_norm or warmup is the usual remedy"
        )

    # ---- limits, readings, validation

    def _limit_reached(self) -> Literal["epochs", "max_steps", "max_seconds"] | None:
        config, position = self.config, self.position
        if self.total_steps is not None and position.step >= self.total_steps:
            return "max_steps" if position.step == config.max_steps else "epochs"
        if config.max_seconds is not None and position.seconds >= config.max_seconds:
            return "max_seconds"
        return None

    def _reading_due(self) -> bool:
        every = self.config.validate_steps or self.order.steps_per_epoch
        return self.position.step % every == 0

    def _take_reading(self) -> None:
        position = self.position
        if position.history and position.history[-1].step == position.step:
            return
        loss = None if self.validation is None else self._validate(self.validation)
        position.seconds = self.world.from_main(time.monotonic() - self.started)
        position.read(self.order.epoch(max(position.step - 1, 0)), loss)
        if loss is None:
            return
        self.progress.advance(0, validation_loss=loss)
        if position.improved(loss, self.config.min_improvement):
            self._remember_best()
        elif self.config.patience is not None and position.without_improvement >= self.config.patience:
            position.stopped_by = "patience"

    @torch.no_grad()
    def _validate(self, held_out: Batches) -> float:
        self.module.eval()
        seeds = derive_seed(self.config.seed, "validation")
        summed = counted = 0.0
        with self.average.applied() if self.average is not None else nullcontext():
            for start in range(0, held_out.count, self.order.batch_size):
                whole = torch.arange(start, min(start + self.order.batch_size, held_out.count))
                mine = whole[self.world.rank :: self.world.processes]
                if len(mine) == 0:
                    continue
                seed = derive_seed(seeds, start, self.world.rank)
                batch = move(held_out.read(mine, seed), self.world.device)
                self.generator.manual_seed(seed)
                seed_torch(seed, self.world.device)
                with self._autocast():
                    summed += float(self.loss_module(batch, self.generator)) * len(mine)
                counted += len(mine)
        self._train_mode()
        summed, counted = self.world.total(summed, counted)
        return summed / counted

    def _remember_best(self) -> None:
        if self.config.restore_best:
            with self.average.applied() if self.average is not None else nullcontext():
                self.best = {key: value.detach().clone() for key, value in self.module.state_dict().items()}

    def _tell(self, loss: float) -> None:
        position, config = self.position, self.config
        here = position.step - (self.resumed_from or 0)
        spent = position.seconds - position.seconds_before
        left = []
        if self.total_steps is not None and here:
            left.append((self.total_steps - position.step) * spent / here)
        if config.max_seconds is not None:
            left.append(config.max_seconds - position.seconds)
        numbers = {"loss": loss, "skipped_steps": float(position.skipped_steps), "seconds_left": min(left, default=0.0)}
        numbers["images_per_second"] = here * self.order.batch_size / spent if spent > 0 else 0.0
        self.progress.advance(1, **numbers)

    # ---- begin, end, disk

    def _train_mode(self) -> None:
        self.module.train()
        for part in self.frozen:
            part.eval()

    def _distribute(self) -> nn.Module:
        if self.world.processes == 1:
            return self.loss_module
        # Layers that initialise themselves from their first batch (ActNorm) must do so before the weights are spread
        # from the main process, and a parameter that no gradient reaches must be known to be one.
        batch = move(self.data.read(self.order.indices(self.position.step), self._seed("data", 0)), self.world.device)
        self._seed_step()
        with self._autocast():
            self.loss_module(batch, self.generator).backward()
        unused = float(any(parameter.grad is None for parameter in self.parameters))
        self.optimizer.zero_grad(set_to_none=True)
        return self.world.distribute(self.loss_module, find_unused=self.world.total(unused)[0] > 0)

    def _keep_data_on_device(self) -> None:
        device = self.world.device
        if device.type != "cuda" or not self.data.in_memory:
            return
        if self.data.nbytes() <= _RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.data.to(device)

    def _open_run(self, path: Path) -> Run:
        data = self.data.fingerprint()
        run = Run(
            path, self.config, self.module, self.optimizer, self.average, data,
            None if self.validation is None else self.validation.fingerprint(),
        )  # fmt: skip
        if path.exists():
            self.position, self.best = read_run(run)
        elif self.world.is_main:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.world.wait()
        return run

    def _checkpoint_due(self) -> bool:
        if self.config.checkpoint_steps is not None:
            return self.position.step % self.config.checkpoint_steps == 0
        return time.monotonic() - self.last_checkpoint >= self.config.checkpoint_seconds

    def _checkpoint(self) -> None:
        self.last_checkpoint = time.monotonic()
        if self.run_on_disk is None or not self.world.is_main:
            return
        try:
            write_run(self.run_on_disk, self.position, self.best)
        except OSError as error:
            # Hours of training are worth more than their checkpoint: go on, say so, try again next time.
            self.failed_checkpoints += 1
            warnings.warn(f"checkpoint not written, training goes on: {error}", RuntimeWarning, stacklevel=2)

    def _finish(self) -> TrainingReport:
        position = self.position
        if self.best:
            self.module.load_state_dict(self.best)
        elif self.average is not None:
            self.average.keep()
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


def _frozen_in_eval(module: nn.Module) -> list[nn.Module]:
    """Parts put in eval mode whose parameters are all frozen: a backbone whose running means must not move."""
    return [
        part
        for part in module.modules()
        if not part.training
        and any(True for _ in part.parameters())
        and not any(p.requires_grad for p in part.parameters())
    ]


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
