"""Training in memory that does not grow with depth: inputs are recomputed from outputs.

Recomputing loses digits where layers shrink or stretch much. So a few inputs along the chain are kept (a number that
does not depend on its length): each recomputed one is compared with what was kept, refused if it differs, replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dracones.flows.places import at_layer

if TYPE_CHECKING:
    from dracones.flows.bijection import Bijection


_ANCHORS = 16  # inputs kept along the chain, whatever its length: rounding errors start anew at each
_TOLERANCE = 1e-3  # of the largest value: gradients are about as far off as the inputs they are computed from


def encode_with_constant_memory(layers: list[Bijection], x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Encode x through the layers, keeping only the last output for backward (Gomez et al. 2017, RevNet).

    Raises ValueError for a layer that gives another result the second time (dropout in train mode).
    """
    for index, layer in enumerate(layers):
        _refuse_if_not_repeatable(index, layer)
    # A parameter that two layers share is handed over once: its gradient is the sum already.
    parameters = dict.fromkeys(p for layer in layers for p in layer.parameters() if p.requires_grad)
    result: tuple[Tensor, Tensor] = _Reversible.apply(layers, x, context, *parameters)
    return result


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layers: list[Bijection], x: Tensor, context: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        z = x
        anchors = []
        for index, layer in enumerate(layers):
            if index % _spacing(len(layers)) == 0:
                anchors.append(z)
            with at_layer(index, layer):
                z, log_det = layer.encode(z, context)
            total = total + log_det
        z = z.view_as(z) if z is x else z
        ctx.layers, ctx.parameters = layers, parameters
        ctx.autocast = torch.is_autocast_enabled(x.device.type)
        ctx.autocast_dtype = torch.get_autocast_dtype(x.device.type)
        ctx.save_for_backward(z, context, *anchors)
        return z, total

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        z, context, *anchors = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            return _differentiable_backward(ctx, anchors[0] if anchors else z, context, grad_z, grad_log_det)
        # Allocated together and first: kept gradients between freed activations would scatter the heap.
        sums = {parameter: torch.zeros_like(parameter) for parameter in ctx.parameters}
        reached = set()
        grad_context = None
        wants_context = context is not None and ctx.needs_input_grad[2]
        autocast = torch.autocast(z.device.type, dtype=ctx.autocast_dtype, enabled=ctx.autocast)
        with torch.enable_grad(), frozen_running_statistics(ctx.layers):
            for step, layer in reversed(list(enumerate(ctx.layers))):
                local = context.detach().requires_grad_() if wants_context else context
                with autocast:  # the recomputation alone: backward has the precision of what was computed
                    x, z_again, log_det = layer.recompute(z, local)
                wanted = [p for p in layer.parameters() if p.requires_grad]
                inputs = [x, *([local] if wants_context else []), *wanted]
                grads = list(
                    torch.autograd.grad(
                        *_reaching(inputs, (z_again, log_det), (grad_z, grad_log_det)),
                        allow_unused=True,
                    )
                )
                grad_z = _or_zeros(grads.pop(0), x)
                if wants_context:
                    grad_context = _added(grad_context, grads.pop(0))
                for parameter, grad in zip(wanted, grads, strict=True):
                    if grad is not None:
                        sums[parameter] += grad
                        reached.add(parameter)
                z = x.detach()
                if step % _spacing(len(ctx.layers)) == 0:
                    anchor = anchors[step // _spacing(len(ctx.layers))]
                    _refuse_if_lost(anchor, z)
                    z = anchor
        return None, grad_z, grad_context, *(sums[p] if p in reached else None for p in ctx.parameters)


def _differentiable_backward(
    ctx: Any, x: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
) -> tuple[Tensor | None, ...]:
    """The ordinary way, its graph kept."""
    z, total = x, x.new_zeros(x.shape[0])
    autocast = torch.autocast(x.device.type, dtype=ctx.autocast_dtype, enabled=ctx.autocast)
    with frozen_running_statistics(ctx.layers), autocast:
        for layer in ctx.layers:
            z, log_det = layer.encode(z, context)
            total = total + log_det
    inputs = [x, context, *ctx.parameters]
    wanted = [i for i in inputs if i is not None and i.requires_grad]
    reaching = _reaching(wanted, (z, total), (grad_z, grad_log_det))
    found = iter(torch.autograd.grad(*reaching, create_graph=True, allow_unused=True))
    grads = [next(found) if i is not None and i.requires_grad else None for i in inputs]
    return None, *grads


def _spacing(count: int) -> int:
    return max(1, -(-count // _ANCHORS))


def _refuse_if_lost(x: Tensor, recomputed: Tensor) -> None:
    error, size = (x - recomputed).abs(), x.abs()
    if x.numel() and bool(error.max() > _TOLERANCE * size.max()):
        raise ValueError(
            f'Chain(memory="constant"): an input computed from the output is off by {error.max() / size.max():.1e} of '
            f"the largest value (allowed: {_TOLERANCE:.0e}), so gradients would be wrong. The layers shrink or stretch "
            'too much for this precision: use memory="standard", a tighter scale (AtanScale(1.9)) or shorter chains'
        )


def _reaching(
    inputs: list[Tensor], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...]
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """(outputs, inputs, grad_outputs) for autograd.grad, without the outputs that depend on nothing."""
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o.requires_grad]
    return [o for o, _ in pairs], inputs, [g for _, g in pairs]


def _or_zeros(grad: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if grad is None else grad


def _added(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    if part is None or total is None:
        return part if total is None else total
    return total + part


@contextmanager
def frozen_running_statistics(modules: list[Bijection]) -> Iterator[None]:
    """BatchNorm uses the batch's statistics as it did the first time, but leaves the running ones alone."""
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(norm, norm.track_running_stats, norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    try:
        yield
    finally:
        for norm, track, mean, variance in kept:
            norm.track_running_stats, norm.running_mean, norm.running_var = track, mean, variance


def _refuse_if_not_repeatable(index: int, layer: Bijection) -> None:
    for module in layer.modules():
        if _is_dropout(module) and module.training:
            name = type(module).__name__
            raise ValueError(
                f"layer {index} ({type(layer).__name__}): {name} cannot be recomputed from its output, so it does not "
                'qualify for memory="constant"; use memory="standard" or move it out of the chain'
            )


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, _DropoutNd) and module.p > 0
