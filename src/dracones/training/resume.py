"""What of a run goes into its checkpoint, and whether a checkpoint is of this run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dracones.training.averaging import Average
from dracones.training.checkpoint import (
    load_checkpoint,
    load_optimizer_state,
    optimizer_state,
    prefixed,
    save_checkpoint,
    under,
)
from dracones.training.config import MAY_CHANGE_ON_RESUME, TrainingConfig
from dracones.training.position import Position


@dataclass(frozen=True)
class Run:
    """The parts of a run that a checkpoint holds or is checked against."""

    path: Path
    config: TrainingConfig
    module: nn.Module
    optimizer: Optimizer
    average: Average | None
    data: str
    validation_data: str | None


def write_run(run: Run, position: Position, best: dict[str, Tensor]) -> None:
    """Write a run's state; `OSError` leaves the last checkpoint as it was."""
    tensors, numbers = optimizer_state(run.optimizer)
    tensors = prefixed("optimizer", tensors) | prefixed("module", _module_state(run.module)) | prefixed("best", best)
    if run.average is not None:
        tensors |= prefixed("average", run.average.state())
    header = {
        "config": run.config.model_dump(mode="json"),
        "module": type(run.module).__name__,
        "data": run.data,
        "validation_data": run.validation_data,
        "position": position.to_json(),
        "optimizer_numbers": numbers,
        "average_updates": run.average.updates if run.average is not None else 0,
    }
    save_checkpoint(run.path, tensors, header)


def read_run(run: Run) -> tuple[Position, dict[str, Tensor]]:
    """Put a checkpoint's state into the run's parts; give the position and the best weights so far.

    Raises `ValueError`, naming every difference, where the checkpoint is of another configuration, module or dataset.
    """
    tensors, header = load_checkpoint(run.path)
    state = under("module", tensors)
    differences = [
        *_config_differences(header["config"], run.config),
        *_module_differences(header["module"], state, run.module),
        *_data_differences(header, run),
    ]
    if differences:
        raise ValueError(
            f"{run.path} is the checkpoint of another run: {'; '.join(differences)}. "
            "Train as before, or name another checkpoint file (or delete this one) to train anew"
        )
    run.module.load_state_dict(state)
    load_optimizer_state(run.optimizer, under("optimizer", tensors), header["optimizer_numbers"])
    if run.average is not None:
        run.average.load(under("average", tensors), header["average_updates"])
    position = Position(**header["position"])
    device = next(run.module.parameters()).device
    return position, {key: value.to(device) for key, value in under("best", tensors).items()}


def _module_state(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    foreign = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if foreign:
        raise TypeError(f"a checkpoint holds tensors only; the module's state has {foreign}: make them buffers")
    return state


def _config_differences(saved: dict[str, Any], config: TrainingConfig) -> list[str]:
    asked = config.model_dump(mode="json")
    fields = sorted(set(saved) | set(asked))
    # Where only the clock bounds a run, its schedule follows the clock, and another budget is another path.
    by_clock = config.epochs is None and config.max_steps is None
    free = MAY_CHANGE_ON_RESUME - {"max_seconds"} if by_clock else MAY_CHANGE_ON_RESUME
    missing = "not known then"
    return [
        f"{field} was {saved.get(field, missing)!r}, is {asked.get(field, 'not known now')!r}"
        for field in fields
        if field not in free and saved.get(field, missing) != asked.get(field, missing)
    ]


def _module_differences(name: str, saved: dict[str, Tensor], module: nn.Module) -> list[str]:
    if name != type(module).__name__:
        return [f"the module was {name}, is {type(module).__name__}"]
    now = _module_state(module)
    shapes = [
        f"{key} was {tuple(saved[key].shape)}, is {tuple(now[key].shape)}"
        for key in now
        if key in saved and saved[key].shape != now[key].shape
    ]
    keys = [f"{key} is new" for key in now if key not in saved] + [f"{key} is gone" for key in saved if key not in now]
    return (shapes + keys)[:5]


def _data_differences(header: dict[str, Any], run: Run) -> list[str]:
    pairs = (
        ("training data", header["data"], run.data),
        ("validation data", header["validation_data"], run.validation_data),
    )
    return [f"the {what} differ (fingerprint was {old}, is {new})" for what, old, new in pairs if old != new]
