"""A batch's loss and gradient, computed a few images at a time: the same numbers in a fraction of the memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Levels = tuple[Tensor, ...]


def loss_in_parts(loss: Callable[[Levels], Tensor], batch: Sequence[Tensor], size: int, module: nn.Module) -> Tensor:
    """`loss(batch)`, for a loss that is a mean over images, with activations of `size` images at a time.

    The gradient for the module's parameters is gathered part by part in the forward pass and handed out in the
    backward pass; it does not flow to the batch.

    Args:
        loss: of maps `[B, ...]`, one a level; a mean over the B images.
        batch: the maps.
        size: images in one part.
        module: whose parameters are trained.
    """
    images = len(batch[0])
    parts = list(zip(*(level.split(size) for level in batch), strict=True))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if len(parts) == 1 or not torch.is_grad_enabled():
        weighted = [loss(part) * (len(part[0]) / images) for part in parts]
        return torch.stack(weighted).sum()
    value: Tensor = _InParts.apply(loss, parts, images, *trained)
    return value


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss: Callable[[Levels], Tensor], parts: list[Levels], images: int, *trained: nn.Parameter
    ) -> Tensor:
        total = torch.zeros((), device=parts[0][0].device)
        gradients: list[Tensor | None] = [None] * len(trained)
        for part in parts:
            with torch.enable_grad():
                value = loss(part) * (len(part[0]) / images)
                found = torch.autograd.grad(value, trained, allow_unused=True)
            torch.clear_autocast_cache()  # it holds weights of a graph that is gone
            total = total + value.detach().to(total.dtype)
            for index, gradient in enumerate(found):
                held = gradients[index]
                gradients[index] = gradient if held is None or gradient is None else held.add_(gradient)
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(None if held is None else held * grad for held in ctx.gradients))
