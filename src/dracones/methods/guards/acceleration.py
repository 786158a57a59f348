"""A faster copy of a classifier for scoring on a CPU: BatchNorm folded into convolutions, channels last in memory."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dracones.methods.guards.views import eval_view

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def accelerated(model: nn.Module, example: Tensor, keep: str | None = None) -> nn.Module:
    """A copy of ``model`` that gives the same answers (to rounding) in less time; the model itself where that fails.

    Args:
        model: left as it is; weights changed later are not seen by the copy.
        example: prepared inputs on which both are compared.
        keep: name of a layer that is read and must stay.

    Warns:
        UserWarning: the model cannot be traced, or the copy answers differently; ``model`` is returned.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).eval()
    >>> [type(m).__name__ for m in accelerated(net, torch.zeros(1, 1, 4, 4)).children()]
    ['Conv2d', 'Flatten', 'Linear']
    """
    scoring = eval_view(model)
    with torch.no_grad():
        try:
            traced = _fold(fx.symbolic_trace(copy.deepcopy(scoring)), keep)
        except Exception as error:
            # Tracing fails in as many ways as models have control flow; each leaves the classifier usable as it is.
            return _give_up(model, f"it cannot be traced ({type(error).__name__}: {error})")
        for module in traced.modules():
            module.training = False
        faster = traced.to(memory_format=torch.channels_last)
        expected, got = scoring(example.clone()), faster(example.clone().contiguous(memory_format=torch.channels_last))
        if not _close(expected, got):
            return _give_up(model, "its traced copy answers differently")
    return faster


def foldable(model: nn.Module) -> int:
    """How many BatchNorms `accelerated` would fold away; 0 where the model cannot be traced or is not on a CPU.

    >>> foldable(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).eval())
    1
    """
    tensor = next(model.parameters(), None)
    if tensor is None or tensor.device.type != "cpu" or not any(isinstance(m, _NORMS) for m in model.modules()):
        return 0
    try:
        traced = fx.symbolic_trace(eval_view(model))
    except Exception:  # as in `accelerated`: tracing fails in as many ways as models have control flow
        return 0
    return len(list(_pairs(traced, None)))


def _give_up(model: nn.Module, reason: str) -> nn.Module:
    warnings.warn(f"accelerate=True is ignored for this {type(model).__name__}: {reason}", UserWarning, stacklevel=4)
    return model


def _fold(traced: fx.GraphModule, keep: str | None) -> fx.GraphModule:
    """Fold each BatchNorm that follows a convolution used once, and by it alone."""
    modules = dict(traced.named_modules())
    for node, before in list(_pairs(traced, keep)):
        owner, _, leaf = str(before.target).rpartition(".")
        convolution, norm = modules[before.target], modules[node.target]
        setattr(traced.get_submodule(owner), leaf, fuse_conv_bn_eval(convolution, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _pairs(traced: fx.GraphModule, keep: str | None) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Each BatchNorm that can be folded, with the convolution before it."""
    modules = dict(traced.named_modules())
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    for node in traced.graph.nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        norm, convolution = modules[node.target], modules[before.target]
        alone = len(before.users) == 1 and calls.count(before.target) == 1 and calls.count(node.target) == 1
        tracked = isinstance(norm, _NORMS) and norm.track_running_stats
        if isinstance(convolution, _CONVOLUTIONS) and tracked and alone and keep not in (node.target, before.target):
            yield node, before


def _close(expected: Any, got: Any) -> bool:
    if isinstance(expected, Tensor) and isinstance(got, Tensor):
        return torch.allclose(expected.float(), got.float(), rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    if isinstance(expected, dict):
        return all(_close(expected[key], got[key]) for key in expected)
    if isinstance(expected, (tuple, list)):
        return all(_close(a, b) for a, b in zip(expected, got, strict=True))
    return True
