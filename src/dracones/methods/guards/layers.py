"""Find the last linear layer of a classifier by watching one pass."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dracones.methods.guards.outputs import LinearHead


@dataclass(frozen=True)
class FoundLayer:
    """Where features are read.

    Attributes:
        name: of the module.
        side: whether its input or its output is read.
        head: the last linear layer where ``head(features)`` is the logits, else ``None``.
    """

    name: str
    side: Literal["input", "output"]
    head: LinearHead | None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner = model.module if isinstance(model, parallel) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def find_layer(model: nn.Module, inputs: Tensor, logits: Tensor, layer: str | None) -> FoundLayer:
    """The layer to read, and the linear layer after it.

    Without a name: the input of the last ``Linear`` that ran, or of a last convolution with one channel per class (as
    in SqueezeNet). This finds timm's and torchvision's heads whatever they are called.

    Raises:
        ValueError: no such layer; the layers that ran last are named.
    """
    ran: list[tuple[str, nn.Module, Tensor]] = []
    read: list[Tensor] = []

    def watch(name: str) -> Any:
        def note(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
            if name == layer:
                read.append(pooled(result))
            if arguments and isinstance(arguments[0], Tensor) and next(module.children(), None) is None:
                ran.append((name, module, pooled(arguments[0]) if arguments[0].ndim >= 2 else arguments[0]))

        return note

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()

    linear = next(((n, m, x) for n, m, x in reversed(ran) if isinstance(m, nn.Linear)), None)
    head = None if linear is None else _head(linear[1], linear[2], logits)
    if layer is not None:
        if not read:
            raise ValueError(f"layer {layer!r} did not run in the classifier's forward pass; name another layer")
        fits = head is not None and read[-1].shape[1] == head.weight.shape[1] and _gives(head, read[-1], logits)
        return FoundLayer(layer, "output", head if fits else None)
    if linear is not None:
        return FoundLayer(linear[0], "input", head)
    for name, module, _ in reversed(ran):
        if isinstance(module, nn.Conv2d) and module.out_channels == logits.shape[1]:
            return FoundLayer(name, "input", None)
    last = ", ".join(repr(name) for name, _, _ in ran[-6:]) or "none: the model is one opaque call"
    raise ValueError(
        "found no last linear layer in the classifier, so it is not known which features to read; name a layer "
        f"(layer=...), the last that ran were {last}; or use a score of logits (msp, energy, ...)"
    )


def pooled(features: Any) -> Tensor:
    """``[B, F]`` of a layer's output: averaged over space or tokens, a copy where a later layer may work in place.

    >>> pooled(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3])
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"the layer gives {type(features).__name__}, not a tensor; name another layer")
    if features.ndim == 2:
        return features.clone()
    if features.ndim == 3:
        return features.mean(dim=1)
    if features.ndim >= 4:
        return features.flatten(2).mean(dim=2)
    raise ValueError(f"features must have a batch and a feature dimension, got shape {tuple(features.shape)}")


def _head(module: nn.Module, features: Tensor, logits: Tensor) -> LinearHead | None:
    """The layer's weights in float32, if they turn these features into the logits."""
    weight, bias = module.weight, module.bias
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return None
    bias = bias if isinstance(bias, Tensor) else torch.zeros(len(weight), device=weight.device)
    head = LinearHead(weight.detach().float(), bias.detach().float())
    return head if _gives(head, features, logits) else None


def _gives(head: LinearHead, features: Tensor, logits: Tensor) -> bool:
    got = head(features.float())
    if got.shape != logits.shape:
        return False
    # Half precision and autocast round at about 1e-2 of the logits' size.
    return bool((got - logits).abs().max() <= 0.02 * logits.abs().max().clamp_min(1e-6))
