"""Modules made without their weights: what a file asks for is measured before any memory is given to it."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

_SLACK_TENSORS = 10_000
_SLACK_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Limits:
    """What may be made while building for a file.

    Attributes:
        tensors: parameters and buffers. A backbone is made whole before its upper layers are cut off, so there may
            be many more than the file has.
        bytes: of tensors that are filled at once (buffers, first weights).
    """

    tensors: int
    bytes: int

    @classmethod
    def of_file(cls, tensors: int, size: int) -> "Limits":
        """Enough for any detector whose file has this many tensors and bytes, and no more than a few times that."""
        return cls(_SLACK_TENSORS + 2 * tensors, _SLACK_BYTES + 4 * size)


@contextmanager
def hollow(limits: Limits) -> Iterator[None]:
    """Inside, this thread's new modules have parameters of a shape and no memory (on the ``meta`` device).

    Buffers are made in full unless they derive from parameters: they may be read while building (masks, permutations),
    and not all of them are saved.

    Raises:
        ValueError: more is asked for than the limits allow.

    >>> with hollow(Limits(tensors=10, bytes=10**9)):
    ...     layer = nn.Linear(10**4, 10**4)
    >>> layer.weight.device
    device(type='meta')
    """
    owner, count = threading.get_ident(), 0

    def counted() -> None:
        nonlocal count
        count += 1
        if count > limits.tensors:
            raise ValueError(f"its configuration asks for more than {limits.tensors} tensors, and it has far fewer")

    def emptied(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or threading.get_ident() != owner:
            return None
        counted()
        if parameter.is_meta:
            return None
        return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)

    def noted(_module: nn.Module, _name: str, _buffer: Tensor | None) -> None:
        if threading.get_ident() == owner:
            counted()

    handles = [
        registration.register_module_parameter_registration_hook(emptied),  # type: ignore[arg-type]
        registration.register_module_buffer_registration_hook(noted),
    ]
    try:
        with _Budget(limits.bytes):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Budget(TorchFunctionMode):
    """Refuses tensors that would together take more than so many bytes, before they are made."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.left = budget
        self.constructors = _device_constructors() - {torch.empty, torch.empty_strided, torch.tensor, torch.as_tensor}

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.constructors and str(kwargs.get("device")) != "meta":
            # The same call on the meta device tells its size and takes no memory.
            alike = {key: value for key, value in kwargs.items() if key not in ("generator", "out")}
            self._spend(func(*args, **{**alike, "device": "meta"}).nbytes)
        on_meta = {**kwargs, "device": "meta"}
        # Not touched before it is emptied, so it costs no memory; but no system maps any size.
        if func is torch.empty and kwargs.get("device") is None and func(*args, **on_meta).nbytes > self.budget:
            self._refuse()
        made = func(*args, **kwargs)
        if isinstance(made, Tensor) and not made.is_meta and made.nbytes > self.budget:
            self._refuse()
        return made

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            self._refuse()

    def _refuse(self) -> None:
        raise ValueError(f"its configuration asks for more than {self.budget / 1024**2:.0f} MB, far beyond its size")
