"""One watched pass of a classifier: what went into and came out of every layer and every matrix product."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dracones.methods.guards.pooling import Pool, pool, poolings

Rows = dict[Pool, Tensor]


@dataclass(frozen=True)
class Call:
    """One layer's call, with its tensors brought to rows in every way that their shapes allow."""

    name: str
    module: nn.Module
    entered: Rows
    left: Rows
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def is_leaf(self) -> bool:
        """Whether nothing is inside."""
        return next(self.module.children(), None) is None


@dataclass(frozen=True)
class Product:
    """A matrix product that no module holds: rows, weight ``[K, F]``, bias, result."""

    features: Tensor
    weight: Tensor
    bias: Tensor | None
    result: Tensor


class Watch(TorchFunctionMode):
    """Notes the calls of a view's layers, and products of rows with a matrix, while active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.products: list[Product] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in ("linear", "matmul", "__matmul__", "mm") and isinstance(result, Tensor) and result.ndim == 2:
            self._note_product(name, list(args), kwargs or {}, result)
        return result

    def _note_product(self, name: str, args: list[Any], kwargs: dict[str, Any], result: Tensor) -> None:
        parts = [*args, *kwargs.values()]
        if len(parts) < 2 or not all(isinstance(part, Tensor) and part.ndim == 2 for part in parts[:2]):
            return
        weight = parts[1] if name == "linear" else parts[1].T
        bias = parts[2] if len(parts) > 2 and isinstance(parts[2], Tensor) else None
        self.products.append(Product(parts[0].clone(), weight, bias, result.clone()))

    @contextmanager
    def around(self, view: nn.Module) -> Iterator[None]:
        """Watch the layers of a view, whose ``forward`` is given back afterwards."""
        watched = [(n, m) for n, m in view.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]
        before = {name: module.__dict__.get("forward") for name, module in watched}
        for name, module in watched:
            module.__dict__["forward"] = self._noting(name, module, module.forward)
        try:
            with self:
                yield
        finally:
            for name, module in watched:
                del module.__dict__["forward"]
                if before[name] is not None:
                    module.__dict__["forward"] = before[name]

    def _noting(self, name: str, module: nn.Module, forward: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            first = first_tensor(args, kwargs)
            entered = {} if first is None else _rows(first)
            shape = () if first is None else tuple(first.shape)
            result = forward(*args, **kwargs)
            left = _rows(result) if isinstance(result, Tensor) else {}
            out = tuple(result.shape) if isinstance(result, Tensor) else ()
            self.calls.append(Call(name, module, entered, left, shape, out))
            return result

        return noted


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor a layer was called with, by position or by keyword."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)


def _rows(tensor: Tensor) -> Rows:
    if not tensor.is_floating_point():
        return {}
    return {how: pool(tensor, how) for how in poolings(tensor)}
