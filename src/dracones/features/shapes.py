"""Shapes of what a network without weights would give."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["is_hollow", "shapes_alone"]


def is_hollow(module: nn.Module) -> bool:
    """Whether parameters have a shape and no memory yet, because their values come from a file."""
    return any(parameter.is_meta for parameter in module.parameters())


@contextmanager
def shapes_alone(module: nn.Module) -> Iterator[None]:
    """Inside, a hollow module computes on the ``meta`` device: shapes without numbers. Any other one as ever.

    Buffers of a hollow module hold numbers (not all of them come with the file), so they step aside meanwhile.

    >>> with torch.device("meta"):
    ...     layer = nn.Conv2d(3, 8, 3)
    >>> with shapes_alone(layer):
    ...     layer(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 8, 6, 6])
    """
    if not is_hollow(module):
        yield
        return
    kept = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None and not buffer.is_meta
    ]
    for owner, name, buffer in kept:
        owner._buffers[name] = buffer.to("meta")
    try:
        with torch.device("meta"):
            yield
    finally:
        for owner, name, buffer in kept:
            owner._buffers[name] = buffer
