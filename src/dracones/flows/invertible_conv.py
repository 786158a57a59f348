"""Invertible 1×1 convolution: a learnt, invertible mixing of the channels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from dracones.flows.bijection import ChannelMixing, Pattern, positions
from dracones.flows.precision import full_precision


class InvertibleConv1x1(ChannelMixing):
    """`z[:, :, h, w] = W x[:, :, h, w]`, log|det| = H·W·log|det W| (Kingma and Dhariwal 2018, section 3.2).

    `lu=True` learns `W = P L (U + diag(sign exp(log_diagonal)))` with P and the signs fixed, so the log-det is a sum
    and W cannot become singular; `lu=False` learns W itself. W starts as a random rotation drawn from `generator`
    (PyTorch's own if None, as for any module's weights).

    Example:
        >>> mix = InvertibleConv1x1(4, generator=torch.Generator().manual_seed(0))
        >>> x = torch.ones(1, 4, 2, 2)
        >>> torch.allclose(mix.decode(mix.encode(x)[0])[0], x, atol=1e-5)
        True
    """

    row_order: Tensor
    sign: Tensor

    def __init__(self, channels: int, *, lu: bool = True, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.channels, self.lu = channels, lu
        rotation, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64))
        if not lu:
            self.weight = nn.Parameter(rotation.float())
            return
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("row_order", permutation.argmax(1))  # rows of L U in the order P puts them
        self.register_buffer("sign", diagonal.sign().float())
        self.lower = nn.Parameter(lower.tril(-1).float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.log_diagonal = nn.Parameter(diagonal.abs().log().float())

    @property
    @override
    def x_pattern(self) -> Pattern:
        return (self.channels, ...)

    def matrix(self) -> tuple[Tensor, Tensor]:
        """(W, log|det W|)."""
        if not self.lu:
            precise = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
            return self.weight, torch.linalg.slogdet(precise)[1].to(self.weight.dtype)
        return (self._lower() @ self._upper())[self.row_order], self.log_diagonal.sum()

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            return _mixed(x, *self.matrix())

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            weight, log_det = self.matrix()
            return _mixed(z, _inverse_of(weight), log_det)

    def _lower(self) -> Tensor:
        return self.lower.tril(-1) + self._identity()

    def _upper(self) -> Tensor:
        return self.upper.triu(1) + self._identity() * (self.sign.to(self.upper.dtype) * self.log_diagonal.exp())

    def _identity(self) -> Tensor:
        return torch.eye(self.channels, dtype=self.lower.dtype, device=self.lower.device)

    @override
    def extra_repr(self) -> str:
        return f"{self.channels}, lu={self.lu}"


def _inverse_of(weight: Tensor) -> Tensor:
    """The inverse of a small matrix, computed in double precision where the device has it."""
    exact = weight.double() if weight.device.type != "mps" else weight
    inverse: Tensor = torch.linalg.inv(exact)
    return inverse.to(weight.dtype)


def _mixed(x: Tensor, weight: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
    """`W x` over the channels of a map or the entries of a vector, and log_det times the number of positions."""
    total = (log_det * positions(x)).expand(x.shape[0])
    if x.dim() == 2:
        return F.linear(x, weight), total
    # One product per image: up to seven times as fast on a CPU as a convolution of few channels.
    return torch.bmm(weight.expand(x.shape[0], *weight.shape), x.flatten(2)).view(x.shape), total
