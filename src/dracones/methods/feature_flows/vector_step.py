"""A flow step on vectors with its network in one piece: the passes of CFLOW-AD that are not matrix products, few."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dracones.flows import AllInOne, ContextConditioner, Permutation, ZeroLinear
from dracones.flows.all_in_one import DAMPING


class PositionedMLP(ContextConditioner):
    """Linear-ReLU-Linear on a vector and the code of its position, the same at every position of a map.

    The first layer has the two parts of its matrix apart. Where all images share the codes (a batch of 1), a code's
    part is computed once and not once an image: the same numbers as joining vector and code, for less arithmetic.
    """

    def __init__(self, in_features: int, out_features: int, *, hidden: int, context_features: int) -> None:
        super().__init__()
        self.vector = nn.Linear(in_features - context_features, hidden)
        self.position = nn.Linear(context_features, hidden, bias=False)
        self.last = ZeroLinear(hidden, out_features)

    def forward(self, seen: Tensor, context: Tensor) -> Tensor:
        """Vectors `[N, C]` or maps `[B, C, h, w]`, and codes `[.., D]` or `[.., D, h, w]`, to as many outputs."""
        hidden = self.vector(seen.movedim(1, -1)) + self.position(context.movedim(1, -1))
        out: Tensor = self.last(hidden.relu_())
        return out.movedim(-1, 1)


def positioned_step(step: AllInOne, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """`step.encode_map(x, codes)` of a step whose conditioner is a `PositionedMLP`, with a backward written out.

    The same numbers: with matrix products in bfloat16 under autocast, all else in x's precision. Gradients reach the
    parameters and x, not the codes. What autograd would do on its own costs more than the products: a padded gradient
    for each slice, a bfloat16 sum for each bias, a cast on either side of every layer.

    Args:
        step: of C channels, mixed by a permutation.
        x: vectors `[N, C]`.
        codes: of their positions, `[N, D]`.
    """
    network, mix = step.coupling.conditioner, step.mix
    if not isinstance(network, PositionedMLP) or not isinstance(mix, Permutation):
        raise TypeError(f"positioned_step: expected a PositionedMLP and a permutation; got {network} and {mix}")
    kind = x.device.type
    products = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    weights = (network.vector.weight, network.vector.bias, network.position.weight, network.last.weight)
    z, log_det = _PositionedStep.apply(
        x,
        codes.to(products),
        *weights,
        network.last.bias,
        step.affine.log_scale,
        step.affine.shift,
        step.clamp,
        mix.index,
        mix.inverse_index,
        products,
    )
    return z, log_det


class _PositionedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codes: Tensor,
        by_vector: Tensor,
        inner_bias: Tensor,
        by_position: Tensor,
        last: Tensor,
        last_bias: Tensor,
        log_scale: Tensor,
        shift: Tensor,
        clamp: float,
        mixing: Tensor,
        unmixing: Tensor,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        count = last.shape[0] // 2
        kept = x.shape[1] - count
        vector_weight, position_weight, last_weight = (w.to(products) for w in (by_vector, by_position, last))
        read = x[:, :kept].to(products, memory_format=torch.contiguous_format)
        hidden = torch.addmm(inner_bias.to(products), read, vector_weight.T)
        hidden.addmm_(codes, position_weight.T).relu_()
        raw = torch.addmm(last_bias.to(products), hidden, last_weight.T).to(x.dtype)
        tanh = raw[:, :count].mul(DAMPING).tanh_()
        s = tanh * clamp
        log_det = s.sum(dim=1) + log_scale.sum()
        exp = s.exp_()
        middle = torch.empty_like(x)
        middle[:, :kept] = x[:, :kept]
        changed = torch.mul(x[:, kept:], exp, out=middle[:, kept:])
        changed.add_(raw[:, count:], alpha=DAMPING)
        gain = log_scale.exp()
        z = torch.addcmul(shift, middle, gain).index_select(1, mixing)
        ctx.save_for_backward(x, codes, read, hidden, tanh, exp, middle, gain, vector_weight, last_weight, unmixing)
        ctx.clamp = clamp
        return z, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        x, codes, read, hidden, tanh, exp, middle, gain, by_vector, last, unmixing = ctx.saved_tensors
        count = tanh.shape[1]
        kept = x.shape[1] - count
        grad_y = grad_z.index_select(1, unmixing)
        grad_shift = grad_y.sum(dim=0)
        grad_log_scale = torch.mul(grad_y, middle).sum(dim=0) * gain + grad_log_det.sum()
        grad_x = grad_y.mul_(gain)
        grad_changed = grad_x[:, kept:]
        grad_raw = torch.empty(len(x), 2 * count, dtype=read.dtype, device=x.device)
        torch.mul(grad_changed, DAMPING, out=grad_raw[:, count:])
        grad_changed *= exp  # in place in grad_x: now the gradient of the old half
        grad_s = torch.addcmul(grad_log_det[:, None], grad_changed, x[:, kept:])
        slope = tanh.square().neg_().add_(1).mul_(ctx.clamp * DAMPING)
        torch.mul(grad_s, slope, out=grad_raw[:, :count])
        grad_hidden = torch.ops.aten.threshold_backward(grad_raw @ last, hidden, 0)
        grad_x[:, :kept] += grad_hidden @ by_vector
        grads = (
            grad_hidden.T @ read,
            grad_hidden.sum(dim=0),
            grad_hidden.T @ codes,
            grad_raw.T @ hidden,
            grad_raw.sum(dim=0),
        )
        wide = (grad.to(gain.dtype) for grad in grads)
        return (grad_x, None, *wide, grad_log_scale, grad_shift, None, None, None, None)
