"""A convolutional network whose inner layers are 1×1, as matrix products over pixels, a few images at a time.

Between a k×k convolution at the start and one at the end such a network never looks sideways: it is a perceptron per
pixel. So the first convolution becomes a product with the shifted input (k·k times the few input channels), the last
one a product followed by a sum of k·k shifted copies of the few output channels, and all hidden maps of a handful of
images stay in the processor's cache. Nothing hidden is kept for backward: computing it again in cache costs less
than writing it out and reading it back, and training takes a fraction of the memory.

Pixels lie in one row per channel, `pad` zeros after each row of an image and `pad` rows of zeros after each image, so
that a shift of the picture is an offset in the row. A last row of ones in front of every layer carries the bias.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_PIXELS = 3072  # pixels at a time, per thread: with 64 hidden channels a layer's values are 0.8 MB


class _Rows:
    """Images of one size as rows of pixels, and the buffers of one pass over them."""

    def __init__(self, like: Tensor, count: int, pad: int) -> None:
        self.like, self.count, self.pad = like, count, pad
        self.height, self.width = like.shape[2:]
        self.stride = self.width + pad
        self.pixels = count * (self.height + pad) * self.stride
        self.margin = pad * (self.stride + 1)
        self.length = self.pixels + 2 * self.margin

    def padded(self, rows: int, *, zeros: bool = True) -> Tensor:
        """A buffer with a margin of zeros on both sides, into which a shift may reach."""
        if zeros:
            return self.like.new_zeros(rows, self.length)
        buffer = self.like.new_empty(rows, self.length)
        buffer[:, : self.margin].zero_()
        buffer[:, self.length - self.margin :].zero_()
        return buffer

    def inner(self, padded: Tensor) -> Tensor:
        return padded[:, self.margin : self.margin + self.pixels]

    def with_ones(self, rows: int) -> Tensor:
        buffer = self.like.new_empty(rows + 1, self.pixels)
        buffer[-1] = 1
        return buffer

    def images(self, row: Tensor) -> Tensor:
        """`[C, pixels]` seen as `[B, C, H, W]`."""
        return self._grid(row)[:, :, : self.height, : self.width].transpose(0, 1)

    def clear_padding(self, row: Tensor) -> None:
        """Zero, in place, what layers computed between the images."""
        grid = self._grid(row)
        grid[:, :, self.height :].zero_()
        grid[:, :, :, self.width :].zero_()

    def spread(self, padded: Tensor, kernel: int, out: Tensor) -> None:
        """The k·k shifted copies of each row: `[C, length] -> [C·k·k, pixels]`."""
        shape = (padded.shape[0], kernel, kernel, self.pixels)
        start = self.margin - (kernel // 2) * (self.stride + 1)
        out.view(shape).copy_(padded.as_strided(shape, (self.length, self.stride, 1, 1), start))

    def gather(self, padded: Tensor, kernel: int) -> Tensor:
        """Transpose of `spread`, sums the shifted copies: `[C·k·k, length] -> [C, pixels]`; padding must be zero."""
        copies = padded.view(-1, kernel**2, self.length)
        start = self.margin + (kernel // 2) * (self.stride + 1)
        total = self.like.new_zeros(copies.shape[0], self.pixels)
        for index in range(kernel**2):  # long rows, so k·k plain additions beat one strided reduction
            first = start - (index // kernel) * self.stride - index % kernel
            total += copies[:, index, first : first + self.pixels]
        return total

    def _grid(self, row: Tensor) -> Tensor:
        return row.unflatten(1, (self.count, self.height + self.pad, self.stride))


class _Pass(_Rows):
    """Forward and backward of a few images."""

    def __init__(self, x: Tensor, count: int, kernels: tuple[int, int], weights: list[Tensor]) -> None:
        super().__init__(x, count, max(kernels) // 2)
        self.kernels, self.weights = kernels, weights
        self.input = self.padded(x.shape[1])
        self.values = [self.with_ones(w.shape[1] - 1) for w in weights[:-1]]
        self.values.append(x.new_empty(weights[-1].shape[1], self.pixels))
        self.output = self.padded(weights[-1].shape[0], zeros=False)

    @cached_property
    def grad(self) -> Tensor:
        return self.padded(self.output.shape[0] // self.kernels[1] ** 2)

    @cached_property
    def deltas(self) -> list[Tensor]:
        """Gradients of what `values` become, layer by layer; the last are the shifted output's."""
        return [self.like.new_empty(w.shape[0], self.pixels) for w in self.weights]

    @cached_property
    def input_grad(self) -> Tensor:
        return self.padded(self.values[0].shape[0] - 1, zeros=False)

    def hidden(self, x: Tensor) -> None:
        """Fill `values`: the shifted input, then every hidden layer."""
        self.images(self.inner(self.input)).copy_(x)
        self.spread(self.input, self.kernels[0], self.values[0][:-1])
        for weight, (before, after) in zip(self.weights, pairwise(self.values), strict=False):
            torch.mm(weight, before, out=after[: weight.shape[0]]).relu_()

    def forward(self, x: Tensor) -> Tensor:
        self.hidden(x)
        columns = self.inner(self.output)
        torch.mm(self.weights[-1], self.values[-1], out=columns)
        self.clear_padding(columns)
        return self.images(self.gather(self.output, self.kernels[1]))

    def backward(self, x: Tensor, grad: Tensor, weight_grads: list[Tensor]) -> Tensor:
        self.hidden(x)
        self.images(self.inner(self.grad)).copy_(grad)
        self.spread(self.grad, self.kernels[1], self.deltas[-1])
        self.clear_padding(self.deltas[-1])
        for index in reversed(range(len(self.weights))):
            weight_grads[index].addmm_(self.deltas[index], self.values[index].t())
            if index:
                values, delta = self.values[index][: self.weights[index - 1].shape[0]], self.deltas[index - 1]
                weight = self.weights[index][:, : values.shape[0]]
                torch.mm(weight.t(), self.deltas[index], out=delta)
                torch.ops.aten.threshold_backward(delta, values, 0, grad_input=delta)
        torch.mm(self.weights[0][:, :-1].t(), self.deltas[0], out=self.inner(self.input_grad))
        return self.images(self.gather(self.input_grad, self.kernels[0]))


class PixelwiseNetwork(torch.autograd.Function):
    """`apply(x, kernels, last_bias, *weights)`; kernels are the first and last layer's, weights those of `matrices`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: tuple[int, int], bias: Tensor, *weights: Tensor) -> Tensor:
        """`[B, in, H, W] -> [B, out, H, W]`."""
        ctx.save_for_backward(x, bias, *weights)
        ctx.kernels = kernels
        output = x.new_empty(x.shape[0], bias.shape[0], *x.shape[2:])
        for part, run in _parts(x, kernels, list(weights)):
            torch.add(run.forward(x[part]), bias[:, None, None], out=output[part])
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, the last bias and the weights; hidden maps are computed again."""
        x, bias, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            return _differentiable_backward(x, ctx.kernels, bias, weights, grad)
        weight_grads = [torch.zeros_like(w) for w in weights]
        x_grad = torch.empty_like(x)
        for part, run in _parts(x, ctx.kernels, weights):
            x_grad[part] = run.backward(x[part], grad[part], weight_grads)
        return x_grad, None, grad.sum((0, 2, 3)), *weight_grads


def matrices(convolutions: list[torch.nn.Conv2d]) -> tuple[Tensor, list[Tensor]]:
    """The last bias, and the weights as matrices: all but the last with their bias as a last column.

    Raises ValueError if a convolution has no bias.
    """
    weights = []
    for convolution in convolutions[:-1]:
        if convolution.bias is None:
            raise ValueError("matrices: expected convolutions with a bias; got one without")
        weights.append(torch.cat([convolution.weight.flatten(1), convolution.bias[:, None]], 1))
    last = convolutions[-1]
    # What pixel q gives to the output at q + d is the kernel's weight at -d: the last kernel is flipped.
    weights.append(last.weight.flip(2, 3).permute(0, 2, 3, 1).flatten(0, 2))
    return last.bias, weights  # type: ignore[return-value]


def _parts(x: Tensor, kernels: tuple[int, int], weights: list[Tensor]) -> Iterator[tuple[slice, _Pass]]:
    """(which images, the pass that takes them), in parts of equal size as far as possible; buffers are shared."""
    count, pixels = x.shape[0], x.shape[0] * x.shape[2] * x.shape[3]
    parts = min(count, max(1, round(pixels / (_PIXELS * torch.get_num_threads()))))
    size = -(-count // max(parts, 1))
    run = None
    for start in range(0, count, max(size, 1)):
        images = min(size, count - start)
        if run is None or run.count != images:
            run = _Pass(x, images, kernels, weights)
        yield slice(start, start + images), run


def _differentiable_backward(
    x: Tensor, kernels: tuple[int, int], bias: Tensor, weights: list[Tensor], grad: Tensor
) -> tuple[Tensor | None, ...]:
    inputs = [x, bias, *weights]
    wanted = [i for i in inputs if i.requires_grad]
    output = convolve(x, kernels, bias, weights)
    grads = iter(torch.autograd.grad(output, wanted, grad, create_graph=True, allow_unused=True))
    x_grad, *rest = [next(grads) if i.requires_grad else None for i in inputs]
    return x_grad, None, *rest


def convolve(x: Tensor, kernels: tuple[int, int], bias: Tensor, weights: list[Tensor]) -> Tensor:
    """The same network by convolutions, differentiable any number of times."""
    for index, weight in enumerate(weights[:-1]):
        kernel = kernels[0] if index == 0 else 1
        shaped = weight[:, :-1].unflatten(1, (-1, kernel, kernel))
        x = F.relu(F.conv2d(x, shaped, weight[:, -1], padding=kernel // 2))
    last = kernels[1]
    shaped = weights[-1].unflatten(0, (-1, last, last)).permute(0, 3, 1, 2).flip(2, 3)
    return F.conv2d(x, shaped, bias, padding=last // 2)
