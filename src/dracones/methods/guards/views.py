"""An eval-mode view of a classifier: other modules over the very same tensors, so that nobody's modes are switched."""

import copy
import types
from typing import Any

import torch
from torch import nn


def eval_view(model: nn.Module, *, detached: bool = False) -> nn.Module:
    """The model as it is in eval mode, without touching it; no memory beside the module objects.

    Every module is copied shallowly and shares its dictionaries of parameters, buffers and hooks with the original, so
    that weights changed or moved later are seen, and hooks of the owner run. What is set on the view (a mode, another
    ``forward``) stays there, whatever other threads do with the model.

    Args:
        model: left as it is.
        detached: parameters ask for no gradient in the view, which then does not follow a move to another device.

    >>> model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    >>> view = eval_view(model)
    >>> view.training, view[0].training, model[0].training, view[1].weight is model[1].weight
    (False, False, True, True)
    """
    seen: dict[int, nn.Module] = {}
    result = _view(unwrapped(model), seen, detached)
    for module in list(seen.values()):
        if not isinstance(module, torch.jit.ScriptModule):
            for name, value in module.__dict__.items():
                if name not in ("_modules", "_parameters", "_buffers"):
                    module.__dict__[name] = _redirected(value, seen)
    return result


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, parallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _view(module: nn.Module, seen: dict[int, nn.Module], detached: bool) -> nn.Module:
    module = unwrapped(module)
    if id(module) in seen:
        return seen[id(module)]
    if isinstance(module, torch.jit.ScriptModule):
        # Its state lives outside Python: no shallow copy exists.
        seen[id(module)] = scripted = copy.deepcopy(module).eval()
        return scripted
    view: nn.Module = object.__new__(type(module))
    seen[id(module)] = view
    view.__dict__.update(module.__dict__)
    if detached:
        held = module.__dict__["_parameters"]
        view.__dict__["_parameters"] = {name: None if p is None else p.detach() for name, p in held.items()}
    view.__dict__["_modules"] = {
        name: None if child is None else _view(child, seen, detached)
        for name, child in module.__dict__["_modules"].items()
    }
    view.__dict__["training"] = False
    return view


def _redirected(value: Any, seen: dict[int, nn.Module]) -> Any:
    """An attribute that leads back to the original (a module in a list, a bound method) leads into the view."""
    if isinstance(value, nn.Module):
        return seen.get(id(value), value)
    if isinstance(value, types.MethodType) and id(value.__self__) in seen:
        return types.MethodType(value.__func__, seen[id(value.__self__)])
    if type(value) in (list, tuple) and any(isinstance(item, nn.Module) for item in value):
        return type(value)(_redirected(item, seen) for item in value)
    if type(value) is dict and any(isinstance(item, nn.Module) for item in value.values()):
        return {key: _redirected(item, seen) for key, item in value.items()}
    return value
