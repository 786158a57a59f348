"""The processes and the device of a run, through Accelerate."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor, nn

Shared = TypeVar("Shared")


# What one process waits for another: features of a large set are computed by the first alone.
_PATIENCE = timedelta(days=1)


class Rank(NamedTuple):
    """Which of how many processes this is."""

    number: int
    processes: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one that speaks and writes for all."""
        return self.number == 0


def launched() -> Rank:
    """This process among those that `torchrun` or `accelerate launch` started; alone where nothing did.

    Raises:
        RuntimeError: several were asked for and one was started.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Rank(torch.distributed.get_rank(), torch.distributed.get_world_size())
    environment = os.environ
    processes = int(environment.get("WORLD_SIZE") or 1)
    by_mpi = any(name in environment for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"))
    # What Accelerate sets where it was asked for several processes, and starts a single one all the same (`--cpu`).
    asked = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if asked and "WORLD_SIZE" not in environment and not by_mpi:
        raise RuntimeError(
            "accelerate launch was asked for several processes and started one (it does so with --cpu); start them "
            "with `torchrun --nproc-per-node N`, or ask for one"
        )
    return Rank(int(environment.get("RANK") or 0), processes)


class World:
    """Which device this process trains on, and what the processes of a run agree on.

    Launched plainly there is one process; launched by `accelerate launch` or `torchrun` each process is one of several.
    """

    def __init__(self, device: str) -> None:
        from accelerate import Accelerator, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState

        asked = launched().processes
        fresh = not AcceleratorState._shared_state
        # Accelerate's state is one per Python process and cannot be asked for twice in two ways: device and precision
        # of a run are set here, and it is told of a CPU only where that decides how processes talk (gloo).
        self._accelerator = Accelerator(
            device_placement=False,
            cpu=fresh and device == "cpu",
            mixed_precision="no" if fresh else None,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)] if fresh else None,
        )
        self.processes: int = self._accelerator.num_processes
        if self.processes < asked:
            raise RuntimeError(
                f"{asked} processes were launched and this one trains as one of {self.processes}: Accelerate was used "
                "in it before the others were known; launch the training in a process of its own"
            )
        self.rank: int = self._accelerator.process_index
        self.is_main: bool = self._accelerator.is_main_process
        self.device = self._choose(device)

    def _choose(self, device: str) -> torch.device:
        found: torch.device = self._accelerator.device
        if self.processes > 1:
            if device != "auto" and torch.device(device).type != found.type:
                raise ValueError(
                    f"the {self.processes} processes of this run were launched on {found.type}; got device={device!r}"
                )
            return found
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device!r} cannot be used here: {error}") from error
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", torch.cuda.current_device())
        return chosen

    def distribute(self, module: nn.Module, *, find_unused: bool) -> nn.Module:
        """The module, its gradients averaged over the processes on every backward pass."""
        if self.processes == 1:
            return module
        from accelerate import DistributedDataParallelKwargs

        handler = DistributedDataParallelKwargs(find_unused_parameters=find_unused)
        self._accelerator.ddp_handler = handler
        shared: nn.Module = self._accelerator.prepare_model(module)
        return shared

    def agree(self, *values: Tensor, clock: float) -> tuple[list[float], float]:
        """The mean over the processes of some scalars, and the main process's clock: the same on each, in one exchange.

        A NaN in one process makes the mean NaN in all.
        """
        scalars = [value.detach().float() for value in values]
        if self.processes == 1:
            return torch.stack(scalars).tolist(), clock
        mine = clock * self.processes if self.is_main else 0.0
        *means, clock = self._accelerator.reduce(
            torch.stack([*scalars, torch.tensor(mine, device=self.device)]), reduction="mean"
        ).tolist()
        return means, clock

    def total(self, *values: float) -> list[float]:
        """The sum over the processes of some numbers."""
        if self.processes == 1:
            return list(values)
        summed: Any = torch.tensor(values, dtype=torch.float64, device=self.device)
        totals: list[float] = self._accelerator.reduce(summed, reduction="sum").tolist()
        return totals

    def from_main(self, value: float) -> float:
        """The main process's number, on each."""
        if self.processes == 1:
            return value
        return self.total(value if self.is_main else 0.0)[0]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others: what it leaves on disk they find."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def shared(self, value: Shared | None) -> Shared:
        """The main process's value, on each."""
        if self.processes == 1:
            return cast(Shared, value)
        box = [value if self.is_main else None]
        torch.distributed.broadcast_object_list(box, src=0)
        return cast(Shared, box[0])

    def wait(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()
