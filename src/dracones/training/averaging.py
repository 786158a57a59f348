"""An exponential moving average of a module's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Moving average of the trainable parameters; buffers are used as they are.

    The decay grows with the steps t as min(decay, (1 + t) / (10 + t)), so that the first weights, which mean nothing,
    are soon forgotten. (`torch.optim.swa_utils.AveragedModel` copies the whole module, frozen backbones with it, begins
    with a copy of the first step's weights, and has no place for the average to be scored or kept in the module.)

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> average = Average(layer, decay=0.5)
        >>> with torch.no_grad(): _ = layer.weight.add_(1.0)
        >>> average.update()
        >>> with average.applied(): gap = layer.weight.detach().clone()
        >>> round(float(layer.weight.detach() - gap), 3)
        0.182
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.names = [name for name, _ in named]
        self._live = [parameter for _, parameter in named]
        self._mean = [parameter.detach().clone() for parameter in self._live]
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of the step just made into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._mean, [parameter.detach() for parameter in self._live], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module with the average in place of its weights, for the length of the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Put the average into the module for good."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, mean in zip(self._live, self._mean, strict=True):
            kept = live.detach().clone()
            live.copy_(mean)
            mean.copy_(kept)

    def state(self) -> dict[str, Tensor]:
        """The average by parameter name."""
        return dict(zip(self.names, self._mean, strict=True))

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Take over a state that `state` gave."""
        for name, mean in zip(self.names, self._mean, strict=True):
            mean.copy_(state[name])
        self.updates = updates
