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
_FILLED_BYTES = 1024**3
"""Of parameters that `filled` makes in full: enough for any network of its kind that timm had, and never 40 GB."""

_making = threading.local()


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
    here = _Making(threading.get_ident(), limits.tensors)
    handles = [
        registration.register_module_parameter_registration_hook(here.parameter),  # type: ignore[arg-type]
        registration.register_module_buffer_registration_hook(here.buffer),
    ]
    before, _making.here = getattr(_making, "here", None), here
    try:
        with _Budget(limits.bytes):
            yield
    finally:
        _making.here = before
        for handle in handles:
            handle.remove()


def within_hollow() -> bool:
    """Whether this thread's new modules are made hollow."""
    return getattr(_making, "here", None) is not None


@contextmanager
def filled() -> Iterator[None]:
    """Within `hollow`, new modules are made in full after all: for networks that compute with their weights as they are
    made (Swin V2 copies its table of positions from the device of its weights).

    Raises:
        ValueError: their parameters take more than 1 GiB.
    """
    here: _Making = _making.here
    here.left = _FILLED_BYTES
    try:
        yield
    finally:
        here.left = None


class _Making:
    """What becomes of each parameter and buffer that a thread registers."""

    def __init__(self, owner: int, tensors: int) -> None:
        self.owner = owner
        self.tensors = tensors
        self.count = 0
        self.left: int | None = None
        """Bytes that may still be filled; none: parameters are emptied."""

    def parameter(self, _module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        """The parameter as it is kept; ``None`` keeps it as it is."""
        if parameter is None or threading.get_ident() != self.owner:
            return None
        self._counted()
        if parameter.is_meta:
            return None
        if self.left is None:
            return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        self.left -= parameter.nbytes  # counted as it is registered: what fills it comes after
        if self.left < 0:
            raise ValueError(f"its network takes more than {_FILLED_BYTES / 1024**2:.0f} MB and cannot be made empty")
        return None

    def buffer(self, _module: nn.Module, _name: str, _buffer: Tensor | None) -> None:
        """Buffers are counted alone."""
        if threading.get_ident() == self.owner:
            self._counted()

    def _counted(self) -> None:
        self.count += 1
        if self.count > self.tensors:
            raise ValueError(f"its configuration asks for more than {self.tensors} tensors, and it has far fewer")


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
