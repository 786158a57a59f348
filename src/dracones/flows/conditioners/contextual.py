"""Conditioners that take the context by themselves."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ContextConditioner(nn.Module, ABC):
    """A conditioner that is given the context beside what is read, and not joined to it as further channels.

    For a context that all samples share (a batch of 1: codes of positions), whose part of the arithmetic then is done
    once and not once a sample.
    """

    @abstractmethod
    def forward(self, seen: Tensor, context: Tensor) -> Tensor:
        """`[B, in, ...]` and a context of as many dimensions, `[B or 1, P, ...]`, to `[B, out, ...]`."""
