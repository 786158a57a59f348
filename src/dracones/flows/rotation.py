"""A fixed random rotation of the channels."""

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from dracones.flows.bijection import ChannelMixing, Pattern
from dracones.flows.precision import full_precision


class Rotation(ChannelMixing):
    """`z = R x` over the channels, R a random orthogonal matrix that is kept as a buffer; log|det| = 0.

    R is uniform over the orthogonal matrices (Mezzadri 2007, "How to generate random matrices from the classical
    compact groups"), drawn from `generator` in double precision.

    Example:
        >>> turn = Rotation(3, torch.Generator().manual_seed(0))
        >>> x = torch.tensor([[1.0, 2.0, 2.0]])
        >>> round(float(turn.encode(x)[0].norm()), 4)
        3.0
    """

    matrix: Tensor

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        draw = torch.randn(channels, channels, generator=generator)
        rotation, upper = torch.linalg.qr(draw.double())
        # The sign makes the draw uniform.
        self.register_buffer("matrix", (rotation * upper.diagonal().sign()).float())

    @property
    @override
    def x_pattern(self) -> Pattern:
        return (self.matrix.shape[0], ...)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _turned(x, self._matrix_in(x.dtype)), x.new_zeros(x.shape[0])

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _turned(z, self._matrix_in(z.dtype).T), z.new_zeros(z.shape[0])

    def _matrix_in(self, dtype: torch.dtype) -> Tensor:
        """The matrix, as orthogonal as the precision can say: one Newton step takes 1e-7 to 1e-14."""
        matrix = self.matrix.to(dtype)
        if dtype != torch.float64:
            return matrix
        return 1.5 * matrix - 0.5 * matrix @ (matrix.T @ matrix)

    @override
    def extra_repr(self) -> str:
        return str(self.matrix.shape[0])


def _turned(x: Tensor, matrix: Tensor) -> Tensor:
    with full_precision(x):
        return F.linear(x.movedim(1, -1), matrix).movedim(-1, 1)
