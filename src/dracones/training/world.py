"""The processes and the device of a run, through Accelerate."""

from typing import Any

import torch
from torch import Tensor, nn


class World:
    """Which device this process trains on, and what the processes of a run agree on.

    Launched plainly there is one process; launched by `accelerate launch` or `torchrun` each process is one of several.
    """

    def __init__(self, device: str) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        fresh = not AcceleratorState._shared_state
        # Accelerate's state is one per Python process and cannot be asked for twice in two ways: device and precision
        # of a run are set here, and it is told of a CPU only where that decides how processes talk (gloo).
        self._accelerator = Accelerator(
            device_placement=False,
            cpu=fresh and device == "cpu",
            mixed_precision="no" if fresh else None,
        )
        self.processes: int = self._accelerator.num_processes
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

    def wait(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()
