"""A training run on disk: one safetensors file, tensors and a JSON header, replaced as a whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from dracones.files.atomic import replacing
from dracones.files.tensors import write_tensors

FORMAT = "dracones-training-checkpoint"
VERSION = 1


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header so that the path holds either the old file or the new one, whole, at any moment.

    Raises `OSError` (disk full, no permission) with the last good file untouched.
    """
    metadata = {"format": FORMAT, "version": str(VERSION), "header": json.dumps(header, allow_nan=False)}
    with replacing(path) as temporary:
        write_tensors(temporary, _storable(tensors), metadata)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote; `ValueError` for a foreign, damaged or newer file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is a safetensors file but no training checkpoint of dracones")
            if int(metadata["version"]) > VERSION:
                raise ValueError(
                    f"{path} was written by a newer dracones (checkpoint version {metadata['version']}; this one "
                    f"reads up to {VERSION}); update dracones or train anew"
                )
            # A copy of its own memory each: the file may be replaced while the run goes on.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, json.loads(metadata["header"])
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); delete it to train anew") from error


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """An optimizer's state as tensors and plain numbers, by the parameter's place."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for place, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{place}/{name}"] = value
            else:
                numbers.setdefault(str(place), {})[name] = value
    return tensors, numbers


def load_optimizer_state(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, dict[str, Any]]
) -> None:
    """Give a fresh optimizer the state that `optimizer_state` took."""
    state: dict[int, dict[str, Any]] = {int(place): dict(values) for place, values in numbers.items()}
    for key, value in tensors.items():
        place, name = key.split("/", 1)
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose key begins with `prefix/`, without it.

    Example:
        >>> list(under("best", {"best/weight": Tensor([0.0]), "module/weight": Tensor([1.0])}))
        ['weight']
    """
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under `prefix/`."""
    return {f"{prefix}/{key}": value for key, value in tensors.items()}


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory (tied weights): every further one is written as a copy.
    seen: set[int] = set()
    storable: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        storage = plain.untyped_storage().data_ptr()
        storable[key] = plain.clone() if storage in seen or plain.untyped_storage().nbytes() != plain.nbytes else plain
        seen.add(storage)
    return storable
