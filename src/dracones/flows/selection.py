"""Some channels of a tensor: a view where they are neighbours, an index otherwise."""

from torch import Tensor, cat


class Selection:
    """The channels (dimension 1) where a boolean mask is true.

    Example:
        >>> import torch
        >>> half = Selection(torch.tensor([False, True, True]))
        >>> half.take(torch.tensor([[1., 2., 3.]]))
        tensor([[2., 3.]])
        >>> half.put(torch.tensor([[1., 2., 3.]]), torch.zeros(1, 2))
        tensor([[1., 0., 0.]])
    """

    def __init__(self, mask: Tensor) -> None:
        self.index = mask.nonzero()[:, 0]
        self.start, self.end = int(self.index[0]), int(self.index[-1]) + 1
        self.neighbours = self.index.numel() == self.end - self.start

    def take(self, x: Tensor) -> Tensor:
        """The selected channels."""
        return x[:, self.start : self.end] if self.neighbours else x.index_select(1, self._on(x))

    def put(self, x: Tensor, values: Tensor) -> Tensor:
        """A copy of x with the selected channels replaced."""
        if not self.neighbours:
            return x.index_copy(1, self._on(x), values)
        around = (x[:, : self.start], values, x[:, self.end :])
        return cat([part for part in around if part.shape[1]], 1)

    def _on(self, x: Tensor) -> Tensor:
        if self.index.device != x.device:
            self.index = self.index.to(x.device)
        return self.index
