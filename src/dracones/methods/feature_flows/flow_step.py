"""One step of a flow on features: coupling, scale and shift, mixing of channels; its log-det per position."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dracones.flows import Bijection, TraceStep
from dracones.flows.bijection import Pattern

Conditioner = Callable[[int, int], nn.Module]
"""Makes the s,t-network from its numbers of input and output channels."""


# FrEIA damps what a conditioner says, so that a fresh network changes little.
DAMPING = 0.1


class FlowStep(Bijection):
    r"""The step that FastFlow, CFLOW-AD and MSFlow are made of, for maps `[B, C, H, W]` and for vectors `[N, C]`.

    The first half of the channels, :math:`x_1`, passes and sets how the rest changes; then every channel is scaled and
    shifted, and all are mixed:

    .. math:: y = (x_1,\; x_2 \exp s + t), \quad z = M (g \cdot y + o), \quad
              \log|\det| = \sum_{hw} \Big( \sum_c s_{chw} + \sum_c \log g_c \Big)

    with :math:`s = \alpha \tanh(0.1\, a_s)`, :math:`t = 0.1\, a_t` from the conditioner's output a. M is a random
    permutation (by index) or a random rotation; both keep the volume.

    This is FrEIA's all-in-one block, which the three papers' code uses; here g = exp(log_scale) where FrEIA has a
    softplus, the conditioner ends in zeros, so a new step only mixes, and a permutation is no dense matrix.

    Args:
        channels: at least 2.
        conditioner: makes the s,t-network.
        clamp: bound :math:`\alpha` of s (FastFlow 2.0, CFLOW and MSFlow 1.9).
        mixing: "permutation" or "rotation".
        generator: draws the mixing.

    Reference:
        Ardizzone et al. 2018-2022, FrEIA, ``AllInOneBlock``; Kingma and Dhariwal 2018, section 3.
    """

    mixing: Tensor
    unmixing: Tensor

    def __init__(
        self,
        channels: int,
        conditioner: Conditioner,
        *,
        clamp: float,
        mixing: Literal["permutation", "rotation"] = "permutation",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"FlowStep: at least 2 channels are needed, one read and one changed; got {channels}")
        self.channels = channels
        self.changed = channels // 2
        self.clamp = clamp
        self.conditioner = conditioner(channels - self.changed, 2 * self.changed)
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        if mixing == "permutation":
            self.register_buffer("mixing", torch.randperm(channels, generator=generator))
            self.register_buffer("unmixing", self.mixing.argsort())
        else:
            rotation, upper = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
            # The sign makes the draw uniform over rotations (Mezzadri 2007).
            self.register_buffer("mixing", rotation * upper.diagonal().sign())

    @property
    def x_pattern(self) -> Pattern:
        """Any height and width, or vectors."""
        return (self.channels, ...)

    def encode_map(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z and the log-det of each position: `[B, h, w]` for maps, `[N]` for vectors. What a heat map is made of."""
        raw = self._raw(x[:, : self.channels - self.changed], context)
        if self.mixing.ndim == 1:
            return _Step.apply(x, raw, self.log_scale, self.shift, self.clamp, self.mixing, self.unmixing)
        y, log_det = _Step.apply(x, raw, self.log_scale, self.shift, self.clamp, None, None)
        return _product(self.mixing, y), log_det

    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.encode_map(x, context)
        return z, log_det.flatten(1).sum(1) if log_det.ndim > 1 else log_det

    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        unmixed = z.index_select(1, self.unmixing) if self.mixing.ndim == 1 else _product(self.mixing.T, z)
        y = (unmixed - _wide(self.shift, z)) * _wide((-self.log_scale).exp(), z)
        passed, changed = y.split((self.channels - self.changed, self.changed), dim=1)
        s, t = self._raw(passed, context).mul(DAMPING).chunk(2, dim=1)
        s = self.clamp * torch.tanh(s)
        x = torch.cat((passed, (changed - t) * (-s).exp()), dim=1)
        log_det = s.sum(dim=1) + self.log_scale.sum()
        return x, log_det.flatten(1).sum(1) if log_det.ndim > 1 else log_det

    def _raw(self, passed: Tensor, context: Tensor | None) -> Tensor:
        raw = self.conditioner(passed) if context is None else self.conditioner(passed, context)
        return raw.to(passed.dtype)

    def trace(self, x: Tensor, context: Tensor | None = None) -> list[TraceStep]:
        """One step with its log-det per position."""
        self._check("trace", x, self.x_pattern, context)
        z, log_det = self.encode_map(x, context)
        total = log_det.flatten(1).sum(1) if log_det.ndim > 1 else log_det
        return [TraceStep(name="", layer=self, input=x, output=z, log_det=total, per_position=log_det)]

    def extra_repr(self) -> str:
        """Channels, bound and mixing."""
        kind = "permutation" if self.mixing.ndim == 1 else "rotation"
        return f"{self.channels}, clamp={self.clamp:g}, mixing={kind}"


class _Step(torch.autograd.Function):
    """All of a step but its conditioner, with a backward written out: half the memory and passes of autograd's.

    Element-wise passes over the maps cost as much as the convolutions between them; gradients are checked against
    finite differences in float64 in the tests.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        raw: Tensor,
        log_scale: Tensor,
        shift: Tensor,
        clamp: float,
        mixing: Tensor | None,
        unmixing: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        count = raw.shape[1] // 2
        kept = x.shape[1] - count
        tanh = raw[:, :count].mul(DAMPING).tanh_()
        s = tanh * clamp
        log_det = s.sum(dim=1) + log_scale.sum()
        exp = s.exp_()
        changed = (x[:, kept:] * exp).add_(raw[:, count:], alpha=DAMPING)
        gain = log_scale.exp()
        y = torch.empty_like(x)
        torch.addcmul(_wide(shift[:kept], x), x[:, :kept], _wide(gain[:kept], x), out=y[:, :kept])
        torch.addcmul(_wide(shift[kept:], x), changed, _wide(gain[kept:], x), out=y[:, kept:])
        ctx.save_for_backward(x, tanh, exp, changed, gain, unmixing)
        ctx.clamp = clamp
        return (y if mixing is None else y.index_select(1, mixing)), log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        x, tanh, exp, changed, gain, unmixing = ctx.saved_tensors
        kept = x.shape[1] - tanh.shape[1]
        grad_y = grad_z if unmixing is None else grad_z.index_select(1, unmixing)
        over = (0, *range(2, x.ndim))
        grad_shift = grad_y.sum(dim=over)
        products = ((grad_y[:, :kept] * x[:, :kept]).sum(dim=over), (grad_y[:, kept:] * changed).sum(dim=over))
        grad_log_scale = torch.cat(products) * gain + grad_log_det.sum()
        grad_x = grad_y * _wide(gain, x)
        grad_changed = grad_x[:, kept:]
        raw_shape = (x.shape[0], 2 * tanh.shape[1], *x.shape[2:])
        grad_raw = torch.empty(raw_shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))
        torch.mul(grad_changed, DAMPING, out=grad_raw[:, tanh.shape[1] :])
        grad_changed *= exp  # in place in grad_x: now the gradient of the old half
        grad_s = torch.addcmul(grad_log_det[:, None], grad_changed, x[:, kept:])
        slope = tanh.square().neg_().add_(1).mul_(ctx.clamp * DAMPING)
        torch.mul(grad_s, slope, out=grad_raw[:, : tanh.shape[1]])
        return grad_x, grad_raw, grad_log_scale, grad_shift, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _wide(per_channel: Tensor, x: Tensor) -> Tensor:
    return per_channel.view(-1, *(1 for _ in x.shape[2:]))


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    if x.ndim == 2:
        return x @ matrix.T
    return nn.functional.conv2d(x, matrix[:, :, None, None])
