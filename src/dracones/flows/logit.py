"""Logit: from the unit interval to the line."""

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from dracones.flows.bijection import Bijection, sum_events


class Logit(Bijection):
    """`z = logit(margin + (1 - 2 margin) x)` for x in [0, 1].

    log|det| = Σ log(1 - 2 margin) + softplus(z) + softplus(-z).
    The margin keeps 0 and 1 finite (Dinh et al. 2017, section 4.1); Kirichenko et al. 2020 use 0.05.
    Raises ValueError unless 0 <= margin < 0.5.

    Example:
        >>> Logit().encode(torch.tensor([[0.0, 0.5, 1.0]]))[0]
        tensor([[-2.9444,  0.0000,  2.9444]])
    """

    margin: Tensor

    def __init__(self, margin: float = 0.05) -> None:
        super().__init__()
        if not 0 <= margin < 0.5:
            raise ValueError(f"Logit: expected a margin in [0, 0.5); got {margin}")
        self.register_buffer("margin", torch.tensor(float(margin)))

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        margin = self.margin.to(x.dtype)
        inner = margin + (1 - 2 * margin) * x
        z = torch.log(inner) - torch.log1p(-inner)
        return z, sum_events(self._log_slope(z))

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        margin = self.margin.to(z.dtype)
        return (torch.sigmoid(z) - margin) / (1 - 2 * margin), sum_events(self._log_slope(z))

    @override
    def _encode_map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, _ = self._encode(x, context)
        return z, self._log_slope(z).sum(1)

    def _log_slope(self, z: Tensor) -> Tensor:
        return F.softplus(z) + F.softplus(-z) + torch.log1p(-2 * self.margin.to(z.dtype))

    @override
    def extra_repr(self) -> str:
        return f"margin={self.margin.item():g}"
