"""Neighbouring linear layers as one: ActNorm and 1×1 convolution cost one product per position together."""

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor, nn

from dracones.flows.actnorm import ActNorm
from dracones.flows.bijection import Bijection
from dracones.flows.invertible_conv import InvertibleConv1x1, inverse_of, mix_channels
from dracones.flows.precision import full_precision


class Folded:
    """Several layers of the form `z = W x + b` at every position, as one; their parameters stay theirs."""

    def __init__(self, layers: list[ActNorm | InvertibleConv1x1]) -> None:
        self.layers = layers

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As encoding with one layer after the other."""
        self.layers[0]._check("encode", x, self.layers[0].x_pattern, context)
        with full_precision(x):
            return mix_channels(x, *self.as_matrix())

    def recompute(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """As `Bijection.recompute`: (x, z, log_det) from z."""
        with full_precision(z):
            weight, bias, log_det = self.as_matrix()
            with torch.no_grad():
                inverse = inverse_of(weight)
                x, _ = mix_channels(z, inverse, -inverse @ bias, log_det)
            x = x.detach().requires_grad_()
            return x, *mix_channels(x, weight, bias, log_det)

    def as_matrix(self) -> tuple[Tensor, Tensor, Tensor]:
        """(W, b, log|det W|) of all layers together."""
        weight, bias, log_det = self.layers[0].as_matrix()
        for layer in self.layers[1:]:
            after, shift, more = layer.as_matrix()
            weight, bias, log_det = after @ weight, after @ bias + shift, log_det + more
        return weight, bias, log_det

    def parameters(self) -> Iterator[nn.Parameter]:
        """All layers' parameters."""
        for layer in self.layers:
            yield from layer.parameters()

    def modules(self) -> Iterator[nn.Module]:
        """All layers and what they contain."""
        for layer in self.layers:
            yield from layer.modules()


def folded(layers: list[Bijection]) -> list[tuple[int, Bijection | Folded]]:
    """(index of the first layer, layer) with each run of linear layers that holds a 1×1 convolution as one.

    An ActNorm that waits for its first batch stands alone.
    """
    steps: list[tuple[int, Bijection | Folded]] = []
    for linear, group in groupby(enumerate(layers), key=lambda pair: _is_linear(pair[1])):
        run = list(group)
        if linear and len(run) > 1 and any(isinstance(layer, InvertibleConv1x1) for _, layer in run):
            steps.append((run[0][0], Folded([layer for _, layer in run])))  # type: ignore[misc]
        else:
            steps += run
    return steps


def _is_linear(layer: Bijection) -> bool:
    return isinstance(layer, InvertibleConv1x1) or (isinstance(layer, ActNorm) and not layer.awaits_data)
