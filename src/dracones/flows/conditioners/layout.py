"""Channels last on a CPU: the same convolutions, up to twice as fast."""

from collections.abc import Callable

import torch
from torch import Tensor

from dracones.flows.autodiff import plain_autograd


def with_channels_last(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`network(x)` with its hidden maps in channels-last layout where that pays (maps on a CPU); result contiguous."""
    if x.dim() != 4 or x.device.type != "cpu" or not plain_autograd():
        return network(x)
    return network(x.contiguous(memory_format=torch.channels_last)).contiguous()
