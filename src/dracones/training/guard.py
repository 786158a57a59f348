"""What a non-finite step touches: undo its side effects, and say which layer it came from."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Forward passes of these steps show which tensors a module writes to (BatchNorm's means, ActNorm's initialisation).
_WATCHED_STEPS = 3


class NonFiniteError(RuntimeError):
    """Training met too many non-finite steps in a row; the message names where they begin."""


class Rollback:
    """Puts back what a forward pass wrote into a module, where its step is not to count.

    A batch that gives NaN has by then spoilt every running mean that saw it. During the first steps everything is
    copied and compared, to learn what a forward pass writes to; after that only those tensors are copied. (Version
    counters would tell it cheaper, but BatchNorm's kernels write past them.)
    """

    def __init__(self, module: nn.Module) -> None:
        self._tensors = [*module.parameters(), *module.buffers()]
        self._copies: list[Tensor] = []
        self._steps = 0
        self._live: list[Tensor] = []

    def remember(self) -> None:
        """Call before a forward pass."""
        if self._steps < _WATCHED_STEPS:
            self._live = self._tensors
            self._copies = [tensor.detach().clone() for tensor in self._tensors]
        elif self._live:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, self._live)

    def watch(self) -> None:
        """Call after the forward pass and before anything else writes to the module."""
        if self._steps >= _WATCHED_STEPS:
            return
        self._steps += 1
        # Copies of what was not written are of no use, and in the way of the gradients: they may be gigabytes. After
        # the last watched step, when layers that initialise themselves have done so, what was written now always is.
        pairs = enumerate(zip(self._tensors, self._copies, strict=True))
        places = [place for place, (tensor, copy) in pairs if not torch.equal(tensor, copy)]
        self._live = [self._tensors[place] for place in places]
        self._copies = [self._copies[place] for place in places]

    @torch.no_grad()
    def restore(self) -> None:
        """Undo the last forward pass's writes."""
        # A layer may still have to initialise itself: look again.
        watching = self._steps < _WATCHED_STEPS
        for tensor, copy in zip(self._live, self._copies, strict=True):
            tensor.copy_(copy)
        if watching:
            self._steps = 0


def where_nonfinite(module: nn.Module, batch: Any, loss: Callable[[], Tensor]) -> str:
    """Say in words where the first non-finite number of a loss arises.

    Looked at in this order: parameters and buffers, the batch, the outputs of layers as they finish (their `forward`,
    and their `encode` where they have one), the loss, the gradients.
    """
    for kind, named in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, tensor in named:
            if (bad := _count_nonfinite(tensor)) > 0:
                return f"{kind} {name!r} holds {bad} non-finite of {tensor.numel()} values"
    if (bad := sum(map(_count_nonfinite, _tensors(batch)))) > 0:
        return f"the batch itself holds {bad} non-finite values"
    found: list[str] = []
    with _watched_outputs(module, found):
        value = loss()
    if found:
        return found[0]
    if not bool(torch.isfinite(value)):
        return f"every layer's output is finite, the loss made from them is {float(value.detach())}"
    module.zero_grad(set_to_none=True)
    value.backward()
    # The gradient flows from the last layer to the first: the last parameter hit is nearest to the cause.
    hit = [name for name, p in module.named_parameters() if p.grad is not None and _count_nonfinite(p.grad)]
    module.zero_grad(set_to_none=True)
    if hit:
        return f"the loss is finite ({float(value.detach()):g}), the gradient of parameter {hit[-1]!r} is not"
    return "it does not occur again when the step is repeated"


@contextmanager
def _watched_outputs(module: nn.Module, found: list[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, layer in module.named_modules():
            if name:
                _watch_method(stack, layer, "forward", name, found)
                # A bijection is used by its encode, which a forward hook would not see.
                _watch_method(stack, layer, "encode", name, found)
        yield


def _watch_method(stack: ExitStack, layer: nn.Module, method: str, name: str, found: list[str]) -> None:
    original = getattr(layer, method, None)
    if not callable(original) or method in vars(layer):
        return

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        bad = sum(map(_count_nonfinite, _tensors(output)))
        if bad and not found:
            found.append(f"layer {name!r} ({type(layer).__name__}) is the first to give {bad} non-finite values")
        return output

    object.__setattr__(layer, method, watched)
    stack.callback(object.__delattr__, layer, method)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _count_nonfinite(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    return int((~torch.isfinite(tensor.detach())).sum())
