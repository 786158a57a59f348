"""Convolutions between maps of several scales, with the work in the cheaper order."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(x)`; where it is faster, the weights' gradient is made of matrix products.

    On a CPU that is so for small and for strided maps: oneDNN takes up to ten times as long for them in bfloat16.
    """
    kind = x.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if kind != "cpu" or not torch.is_grad_enabled() or not _pays(layer, x, precision):
        convolved: Tensor = layer(x)
        return convolved
    product: Tensor = _Convolution.apply(
        x.to(precision), layer.weight.to(precision), layer.stride[0], int(layer.padding[0])
    )
    return product if layer.bias is None else product + layer.bias.to(precision).view(-1, 1, 1)


def convolve_enlarged(layer: nn.Conv2d, x: Tensor, size: tuple[int, int]) -> Tensor:
    r"""`layer` applied to `x` brought to `size` bilinearly: the same linear map, its factors in another order.

    A convolution is a sum over taps (i, j) of a product with a matrix and a shift. The product commutes with enlarging,
    so it is made on the small map, where there is a quarter of the positions; enlarging, shifting and summing are then
    a small matrix for each axis, :math:`y = \sum_{ij} A_i\, (x W_{ij})\, B_j^T`.
    """
    kind = x.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    count, _, height, width = x.shape
    taps, out = layer.kernel_size[0], layer.out_channels
    weight = layer.weight.to(precision).permute(2, 3, 0, 1).flatten(0, 2)
    rows = x.to(precision).permute(0, 2, 3, 1).flatten(0, 2)
    products = (rows @ weight.T).view(count, height, width, taps, taps, out)
    along_rows = products.permute(0, 1, 3, 2, 4, 5).reshape(-1, width * taps, out)
    along_columns = (_enlarging(width, size[1], taps).to(rows) @ along_rows).view(count, height * taps, size[1] * out)
    enlarged = _enlarging(height, size[0], taps).to(rows) @ along_columns
    if layer.bias is not None:
        enlarged = enlarged + layer.bias.to(precision).repeat(size[1])
    return enlarged.view(count, *size, out).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _enlarging(small: int, large: int, taps: int) -> Tensor:
    """`[large, small * taps]`: what each tap adds to each position, zeros beyond the edges."""
    with torch.inference_mode(mode=False), torch.no_grad():
        interpolation = F.interpolate(
            torch.eye(small, dtype=torch.float64)[None], size=large, mode="linear", align_corners=False
        )[0].T
        reach = taps // 2
        padded = F.pad(interpolation, (0, 0, reach, reach))
        return torch.stack([padded[tap : tap + large] for tap in range(taps)], dim=2).flatten(1)


def _pays(layer: nn.Conv2d, x: Tensor, precision: torch.dtype) -> bool:
    if layer.groups > 1 or layer.dilation != (1, 1) or isinstance(layer.padding, str):
        return False
    # Measured on 4, 8 and 16 cells a side: what is left is as fast by oneDNN's own gradient.
    small = x.shape[0] * x.shape[2] * x.shape[3] <= 2048
    if precision == torch.bfloat16:
        return small or layer.stride[0] > 1
    return precision == torch.float32 and (layer.in_channels > layer.out_channels or small)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        if ctx.needs_input_grad[1]:
            height, width = (stride * (side - 1) + 1 for side in grad.shape[2:])
            padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
            rows = grad.permute(0, 2, 3, 1).flatten(0, 2)
            out, read, *taps = weight.shape
            by_tap = weight.new_empty(taps[0] * taps[1], out, read)
            for i in range(taps[0]):
                for j in range(taps[1]):
                    seen = padded[:, i : i + height : stride, j : j + width : stride].flatten(0, 2)
                    torch.mm(rows.T, seen, out=by_tap[i * taps[1] + j])
            grad_weight = _taps_last(by_tap.flatten(1)).view_as(weight)
        return grad_x, grad_weight, None, None


def _taps_last(by_tap: Tensor) -> Tensor:
    # A product with the identity, which is exact, transposes three times as fast as a copy in bfloat16.
    return by_tap.T @ torch.eye(len(by_tap), dtype=by_tap.dtype)
