"""A batch's mean loss and its gradient, a few samples at a time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Loss = Callable[[Tensor], Tensor]


def mean_loss_by_parts(loss_of: Loss, parameters: list[Tensor], x: Tensor, size: int) -> Tensor:
    """The mean of `loss_of` over x `[B, ...]`, where it gives the mean of a part; differentiable in the parameters.

    The gradient is gathered part by part on the way forward and handed out on the way back, so memory is that of
    `size` samples whatever the batch: a step of FastFlow on 32 images of 256 pixels peaks at 0.9 GB so, at 3.0 GB by
    ordinary backpropagation (`benchmarks/alternatives`). None flows to x.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    value: Tensor = _ByParts.apply(loss_of, x.detach(), size, *learning)
    return value


class _ByParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss_of: Loss, x: Tensor, size: int, *parameters: Tensor) -> Tensor:
        needed = any(ctx.needs_input_grad)
        total, sums = x.new_zeros(()), [torch.zeros_like(parameter) for parameter in parameters]
        for start in range(0, x.shape[0], size):
            part = x[start : start + size]
            with torch.set_grad_enabled(needed):
                value = loss_of(part) * (part.shape[0] / x.shape[0])
            total += value.detach()
            if needed:
                grads = torch.autograd.grad(value, parameters, allow_unused=True)
                for gathered, grad in zip(sums, grads, strict=True):
                    if grad is not None:
                        gathered += grad
        ctx.gradients = sums if needed else []
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(gradient.mul_(grad) for gradient in ctx.gradients))
