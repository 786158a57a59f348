"""Channels last on a CPU: the same convolutions, up to twice as fast."""

from collections.abc import Callable

import torch
from torch import Tensor

from dracones.flows.autodiff import plain_autograd


def with_channels_last(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`network(x)` with hidden maps in channels-last layout where that pays (maps on a CPU); laid out as x."""
    if x.dim() != 4 or x.device.type != "cpu" or not plain_autograd():
        return network(x)
    output = network(x.contiguous(memory_format=torch.channels_last))
    return output if x.is_contiguous(memory_format=torch.channels_last) else output.contiguous()
