"""Fixed reorderings of the channels, by index."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from dracones.flows.bijection import ChannelMixing, Pattern


class Permutation(ChannelMixing):
    """`z[:, i] = x[:, index[i]]`: moves channels by index (never by a dense matrix); log|det| = 0.

    Raises ValueError if the index is not a permutation of 0, ..., C-1.

    Example:
        >>> Permutation([2, 0, 1]).encode(torch.tensor([[10., 11., 12.]]))[0]
        tensor([[12., 10., 11.]])
    """

    index: Tensor
    inverse_index: Tensor

    def __init__(self, index: Tensor | Sequence[int]) -> None:
        super().__init__()
        order = torch.as_tensor(index)
        if order.dim() != 1 or not torch.equal(order.sort().values, torch.arange(order.numel())):
            raise ValueError(f"Permutation: expected each of 0, ..., {order.numel() - 1} once; got {order.tolist()}")
        self.register_buffer("index", order.clone())
        self.register_buffer("inverse_index", order.argsort())

    @classmethod
    def random(cls, channels: int, generator: torch.Generator | None = None) -> "Permutation":
        """A random order, drawn from the generator."""
        return cls(torch.randperm(channels, generator=generator))

    @classmethod
    def reversed(cls, channels: int) -> "Permutation":
        """The channels from last to first."""
        return cls(torch.arange(channels).flip(0))

    @property
    @override
    def x_pattern(self) -> Pattern:
        return (self.index.numel(), ...)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.index), x.new_zeros(x.shape[0])

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z.index_select(1, self.inverse_index), z.new_zeros(z.shape[0])

    @override
    def extra_repr(self) -> str:
        order = self.index.tolist()
        return str(order) if len(order) <= 16 else f"{len(order)} channels"
