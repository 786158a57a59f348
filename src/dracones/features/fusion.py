"""Fold frozen batch normalisation into the convolution before it: the same numbers, one pass over memory less."""

from collections import Counter
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norm"]


def fold_batch_norm(network: nn.Module, example: Tensor) -> int:
    """Fold every BatchNorm2d that directly follows a convolution, in place; the count of folded layers.

    What follows what is seen by running `example` once, so any architecture works. A convolution that several
    normalisations or calls share is left alone.

    Args:
        network: in eval mode.
        example: an image batch `[1, C, H, W]` the network takes.
    """
    pairs = _adjacent(network, example)
    parents = {id(child): (parent, name) for parent in network.modules() for name, child in parent.named_children()}
    for convolution, norm in pairs:
        # timm's BatchNormAct2d holds its activation; what follows the arithmetic stays.
        rest = [layer for layer in (getattr(norm, "drop", None), getattr(norm, "act", None)) if layer is not None]
        plain = nn.BatchNorm2d(norm.num_features, eps=norm.eps, affine=norm.affine)
        plain.load_state_dict(norm.state_dict())
        parent, name = parents[id(convolution)]
        setattr(parent, name, fuse_conv_bn_eval(convolution, plain.eval()))
        parent, name = parents[id(norm)]
        kept = [layer for layer in rest if not isinstance(layer, nn.Identity)]
        setattr(parent, name, kept[0] if len(kept) == 1 else nn.Sequential(*kept) if kept else nn.Identity())
    return len(pairs)


def _adjacent(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    produced: dict[int, nn.Conv2d] = {}
    alive: list[Tensor] = []  # keeps ids unique while the forward runs
    calls: Counter[int] = Counter()
    consumers: Counter[int] = Counter()
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        calls[id(module)] += 1
        produced[id(output)] = cast(nn.Conv2d, module)
        alive.append(output)

    def before_any(module: nn.Module, inputs: tuple[object, ...]) -> None:
        source = produced.get(id(inputs[0])) if inputs else None
        if source is None:
            return
        consumers[id(source)] += 1
        if isinstance(module, nn.BatchNorm2d):
            pairs.append((source, module))

    hooks = []
    for module in network.modules():
        if next(module.children(), None) is None or isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_any))
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
    try:
        with torch.no_grad():
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if calls[id(convolution)] == 1 and consumers[id(convolution)] == 1 and norm.running_mean is not None
    ]
