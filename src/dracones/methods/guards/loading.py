"""A classifier named in text: a timm name with a local weight file, ``module:function``, or an exported program."""

import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from dracones.files.weights import read_weights
from dracones.methods.guards.exported import load_exported

Kind = Literal["timm", "function", "exported"]


@dataclass(frozen=True)
class NamedClassifier:
    """A loaded classifier and what its origin says of its inputs.

    Attributes:
        module: in eval mode.
        mean, std: the normalisation timm records for the weights; ``None`` where the origin says nothing.
        size: ``(height, width)`` that timm resizes to.
        crop: ``(height, width)`` that it then cuts from the centre, where that is less.
        fit: how another shape meets size.
        interpolation: its filter, where it is one of ours.
    """

    module: nn.Module
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    fit: Literal["stretch", "cover", "contain"] | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] | None = None


def kind_of(name: str) -> Kind:
    """What a text names: a file or ``.pt2`` is an exported program, a colon a function, all else a timm model.

    >>> kind_of("resnet18"), kind_of("my_nets:resnet20"), kind_of("guarded.pt2")
    ('timm', 'function', 'exported')
    """
    if name.endswith(".pt2"):
        return "exported"
    module, colon, function = name.rpartition(":")
    if colon and module and function.isidentifier():
        return "function"
    return "exported" if Path(name).is_file() else "timm"


def load_classifier(name: str, weights: str | Path | None = None) -> NamedClassifier:
    """Make the classifier that ``name`` names, on the CPU, in eval mode. Nothing is downloaded.

    Args:
        name: a timm model name (``weights`` is then needed), ``package.module:function`` or ``file.py:function``
            (called without arguments), or the path of a program that ``torch.export.save`` wrote.
        weights: state dict as safetensors or a torch file; read without unpickling objects. The number of classes and
            input channels follow from it for timm models.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown timm name (the nearest are given), no such function, weights that do not fit.
        TypeError: the function returned something that is not a module.
    """
    kind = kind_of(name)
    if kind == "exported":
        if weights is not None:
            raise ValueError(f"the exported program {name} holds its weights; leave classifier_weights out")
        return NamedClassifier(load_exported(name))
    if kind == "function":
        module = _call(name)
        if weights is not None:
            _load(module, read_weights(weights), f"the classifier {name}", weights)
        return NamedClassifier(module.eval())
    return _from_timm(name, weights)


def _from_timm(name: str, weights: str | Path | None) -> NamedClassifier:
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "see timm.list_models()"
        raise ValueError(
            f"no classifier {name!r}: neither a timm model ({hint}), nor 'module:function', nor a file of torch.export"
        )
    if weights is None:
        raise ValueError(
            f"timm's {name} would have random weights; give the local weight file with classifier_weights=... "
            "(nothing is downloaded)"
        )
    state = read_weights(weights)
    recorded = timm.models.get_pretrained_cfg(name)
    cfg: dict[str, Any] = recorded.to_dict() if recorded is not None else {}
    sizes: dict[str, Any] = {}
    last, first = _text(cfg.get("classifier")), _text(cfg.get("first_conv"))
    if f"{last}.weight" in state:
        sizes["num_classes"] = len(state[f"{last}.weight"])
    if f"{first}.weight" in state:
        sizes["in_chans"] = state[f"{first}.weight"].shape[1]
    module = timm.create_model(name, pretrained=False, **sizes)
    _load(module, state, f"timm's {name}", weights)
    channels = sizes.get("in_chans", 3)
    mean, std = cfg.get("mean"), cfg.get("std")
    known = mean is not None and std is not None and len(mean) == channels
    return NamedClassifier(
        module.eval(),
        tuple(mean) if known and mean else None,
        tuple(std) if known and std else None,
        **_resizing(cfg),
    )


def _resizing(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Size, crop, fit and filter by which timm's evaluation brings an image to the network."""
    if not cfg.get("input_size"):
        return {}
    height, width = cfg["input_size"][1:]
    share = float(cfg.get("crop_pct") or 1.0)
    # As timm rounds: down.
    size = (math.floor(height / share), math.floor(width / share))
    filters = ("bilinear", "bicubic", "nearest")
    return {
        "size": size,
        "crop": (height, width) if size != (height, width) else None,
        "fit": {"squash": "stretch", "border": "contain"}.get(str(cfg.get("crop_mode")), "cover"),
        "interpolation": cfg["interpolation"] if cfg.get("interpolation") in filters else None,
    }


def _text(value: Any) -> str:
    return value[0] if isinstance(value, (tuple, list)) and value else str(value)


def _load(module: nn.Module, state: Mapping[str, Tensor], who: str, path: str | Path) -> None:
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit {who}: {error}") from None


def _call(name: str) -> nn.Module:
    where, _, function = name.rpartition(":")
    module = _import(where, name)
    if not callable(getattr(module, function, None)):
        known = [n for n in dir(module) if callable(getattr(module, n)) and not n.startswith("_")]
        near = get_close_matches(function, known, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"{where} has no function {function!r}{hint}")
    made = getattr(module, function)()
    if not isinstance(made, nn.Module):
        raise TypeError(f"{name} must return a torch.nn.Module, it returned {type(made).__name__}")
    return made


def _import(where: str, name: str) -> Any:
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise FileNotFoundError(f"no Python file at {path} (from classifier={name!r})")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        # As `python -m` does: a module beside the user's data is found without being installed.
        sys.path.insert(0, here)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"cannot import {where!r} (from classifier={name!r}): {error}; name 'package.module:function' or "
            "'file.py:function'"
        ) from None
    finally:
        if added:
            sys.path.remove(here)
