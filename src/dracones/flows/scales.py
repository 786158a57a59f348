"""Bounded log-scales: what an affine coupling makes of its conditioner's raw output, so that exp cannot overflow."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override


class TanhScale(nn.Module):
    """`s = limit * tanh(slope * raw)`, the limit learnt per channel unless `learnable=False`.

    With limit 1 and slope 1 it is Kirichenko et al. 2020's `rescale * tanh(raw)`; with `learnable=False` and slope
    0.1 it is FrEIA's soft clamp. `channels` is the number of channels that the coupling changes.
    """

    limit: Tensor
    slope: Tensor

    def __init__(self, channels: int, *, limit: float = 1.0, slope: float = 1.0, learnable: bool = True) -> None:
        super().__init__()
        self.register_buffer("slope", torch.tensor(float(slope)))
        full = torch.full((channels,), float(limit))
        if learnable:
            self.limit = nn.Parameter(full)
        else:
            self.register_buffer("limit", full)

    def forward(self, raw: Tensor) -> Tensor:
        """Log-scale of the raw values, same shape."""
        limit = self.limit.view(-1, *(1 for _ in raw.shape[2:])).to(raw.dtype)
        return limit * torch.tanh(self.slope.to(raw.dtype) * raw)

    @override
    def extra_repr(self) -> str:
        return f"{self.limit.shape[0]}, slope={self.slope.item():g}, learnable={isinstance(self.limit, nn.Parameter)}"


class AtanScale(nn.Module):
    """`s = limit * 2/pi * atan(slope * raw)`, within ±limit; slope is 1/limit unless given.

    With the default slope it is the clamp of DifferNet (Rudolph et al. 2021) and CS-Flow (2022), `0.636 a atan(s/a)`.
    """

    limit: Tensor
    slope: Tensor

    def __init__(self, limit: float = 3.0, *, slope: float | None = None) -> None:
        super().__init__()
        self.register_buffer("limit", torch.tensor(float(limit)))
        self.register_buffer("slope", torch.tensor(1.0 / limit if slope is None else float(slope)))

    def forward(self, raw: Tensor) -> Tensor:
        """Log-scale of the raw values, same shape."""
        return (self.limit * (2 / math.pi)).to(raw.dtype) * torch.atan(raw * self.slope.to(raw.dtype))

    @override
    def extra_repr(self) -> str:
        return f"limit={self.limit.item():g}, slope={self.slope.item():g}"


class SigmoidScale(nn.Module):
    """`exp(s) = floor + (1 - floor) * sigmoid(raw + shift)`: Glow's scale (Kingma and Dhariwal 2018), shift 2.

    The floor bounds s from below at log(floor), -3: Glow has none, and a chain of its couplings can shrink values by
    so much that float32 cannot decode them. A new flow with this scale is not the identity: zeros give a scale of
    0.89. Raises ValueError unless 0 < floor < 1.
    """

    shift: Tensor
    floor: Tensor

    def __init__(self, shift: float = 2.0, *, floor: float = 0.05) -> None:
        super().__init__()
        if not 0 < floor < 1:
            raise ValueError(f"SigmoidScale: expected a floor between 0 and 1; got {floor}")
        self.register_buffer("shift", torch.tensor(float(shift)))
        self.register_buffer("floor", torch.tensor(float(floor)))

    def forward(self, raw: Tensor) -> Tensor:
        """Log-scale of the raw values, same shape."""
        floor = self.floor.to(raw.dtype)
        return torch.log(floor + (1 - floor) * torch.sigmoid(raw + self.shift.to(raw.dtype)))

    @override
    def extra_repr(self) -> str:
        return f"shift={self.shift.item():g}, floor={self.floor.item():g}"


SCALES = ("tanh", "atan", "sigmoid")


def make_scale(scale: str | nn.Module, channels: int) -> nn.Module:
    """A log-scale module from its name (`tanh`, `atan`, `sigmoid`) or the module itself."""
    if isinstance(scale, nn.Module):
        return scale
    if scale == "tanh":
        return TanhScale(channels)
    if scale == "atan":
        return AtanScale()
    if scale == "sigmoid":
        return SigmoidScale()
    raise ValueError(f"scale: expected a module or one of {', '.join(SCALES)}; got {scale!r}")
