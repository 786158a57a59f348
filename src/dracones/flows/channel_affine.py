"""A scale and a shift per channel that start as the identity."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from dracones.flows.bijection import Bijection, Pattern, positions


class ChannelAffine(Bijection):
    """`z = x exp(log_scale) + shift` per channel, log|det| = positions · Σ log_scale.

    Unlike `ActNorm` it shifts last and takes nothing from a first batch: a new one is the identity.

    Example:
        >>> ChannelAffine(2).encode(torch.tensor([[1.0, 2.0]]))[0]
        tensor([[1., 2.]], grad_fn=<AddcmulBackward0>)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    @property
    @override
    def x_pattern(self) -> Pattern:
        return (self.shift.shape[0], ...)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.addcmul(_wide(self.shift, x), x, _wide(self.log_scale, x).exp()), self._log_det(x)

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (z - _wide(self.shift, z)) * _wide(-self.log_scale, z).exp(), self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return (self.log_scale.sum() * positions(x)).expand(x.shape[0])

    @override
    def extra_repr(self) -> str:
        return str(self.shift.shape[0])


def _wide(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.view(-1, *(1 for _ in x.shape[2:]))
