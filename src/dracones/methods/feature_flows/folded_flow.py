"""A chain of flow steps on maps, run with permutations, scales and shifts folded away: the same numbers, sooner."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dracones.flows import AllInOne, ConvNet, Permutation
from dracones.flows.all_in_one import DAMPING

# Values of maps worked on together. On a CPU, for each thread; measured: fewer make convolutions slow, more leave its
# cache. An accelerator wants many; there it is memory that bounds them.
_VALUES_A_THREAD = 2**19
_VALUES_ON_ACCELERATOR = 2**25


class FoldedStep(NamedTuple):
    r"""One step on stored maps S, which stand for :math:`z_c = e^{g_c} (S_c + o_c)`.

    A step's scale and shift then only change the vectors g and o. What is left of it, for the half 1 that is read and
    the half 2 that is changed, before the channels are mixed, is

    .. math:: S_2 \leftarrow (S_2 + o_2) \exp(\alpha \tanh a + g_2) + b, \quad (a, b) = \mathrm{conv}(S_1 + o_1)

    with :math:`e^{g_1}` in the weights of the first convolution (it scales its input, padding included) and FrEIA's
    damping in those of the last.
    """

    mixing: Tensor
    unmixing: Tensor
    offset_read: Tensor
    offset_changed: Tensor
    log_gain: Tensor
    first_weight: Tensor
    first_bias: Tensor
    last_weight: Tensor
    last_bias: Tensor


_TENSORS_OF_A_STEP = len(FoldedStep._fields) - 2


class FoldedFlow(NamedTuple):
    """Steps, then the log-gain and offset `[C]` that turn stored maps into latents."""

    steps: tuple[FoldedStep, ...]
    log_gain: Tensor
    offset: Tensor
    clamp: float


def fold(steps: Sequence[AllInOne]) -> FoldedFlow:
    """Differentiable by autograd: vectors and weights alone, once a batch and not once an image.

    The steps mix by permutation and their conditioners are a `ConvNet` of two convolutions.
    """
    log_gain = offset = torch.zeros_like(steps[0].affine.log_scale)
    folded = []
    for step in steps:
        changed, mix = step.coupling.changed_channels, step.mix
        if not isinstance(mix, Permutation):
            raise TypeError(f"fold: expected steps that mix by permutation; got {type(mix).__name__}")
        kept = len(log_gain) - changed
        first, last = convolutions(step)
        folded.append(
            FoldedStep(
                mix.index,
                mix.inverse_index,
                offset[:kept],
                offset[kept:],
                log_gain[kept:],
                first.weight * log_gain[:kept].exp()[:, None, None],
                _bias(first),
                last.weight * DAMPING,
                _bias(last) * DAMPING,
            )
        )
        log_gain = F.pad(log_gain[:kept], (0, changed)) + step.affine.log_scale
        offset = F.pad(offset[:kept], (0, changed)) + step.affine.shift * (-log_gain).exp()
        log_gain, offset = log_gain[mix.index], offset[mix.index]
    return FoldedFlow(tuple(folded), log_gain, offset, steps[0].clamp)


def convolutions(step: AllInOne) -> tuple[nn.Conv2d, nn.Conv2d]:
    """First and last of a step's conditioner."""
    network = step.coupling.conditioner
    layers = list(network.network) if isinstance(network, ConvNet) else []
    match layers:
        case [nn.Conv2d() as first, nn.ReLU(), nn.Conv2d() as last]:
            return first, last
    raise TypeError(f"fold: expected conditioners that are a ConvNet of two convolutions; got {network}")


def loss(flow: FoldedFlow, x: Tensor, dtype: torch.dtype, images_at_once: int | None = None) -> Tensor:
    r"""Mean over images and positions of :math:`(\frac12 \sum_c z_c^2 - \log|\det|) / C`; differentiable in `flow`.

    Gradients are gathered a few images at a time on the way forward, and handed out on the way back. They are
    those of finite differences (tested in float64); none flows to `x`.
    """
    tensors = [tensor for step in flow.steps for tensor in step[2:]]
    value: Tensor = _Loss.apply(flow, x, dtype, images_at_once, flow.log_gain, flow.offset, *tensors)
    return value


class _Kept(NamedTuple):
    """What the way back needs of one step; the rest is cheaper to compute again than to fetch."""

    seen: Tensor
    hidden: Tensor
    raw: Tensor
    scaled: Tensor


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        flow: FoldedFlow,
        x: Tensor,
        dtype: torch.dtype,
        images_at_once: int | None,
        log_gain: Tensor,
        offset: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        weight = 1.0 / x.numel()
        needed = any(ctx.needs_input_grad)
        flow = _cast(flow, dtype)
        gains = flow.log_gain.exp()[:, None]
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        sums = [torch.zeros_like(tensor) for tensor in (log_gain, offset, *tensors)]
        for part in _parts(x, images_at_once):
            kept: list[_Kept] | None = [] if needed else None
            stored, log_det = _run(flow, part, dtype, kept)
            z = stored.add_(flow.offset[:, None]).mul_(gains)
            squares = z.square().sum(dim=(0, 2))
            positions = log_det.numel()
            total += (0.5 * squares.sum() - log_det.sum() - flow.log_gain.sum() * positions) * weight
            if kept is not None:
                sums[0] += (squares - positions) * weight
                grad = z.mul_(gains * weight)
                sums[1] += grad.sum(dim=(0, 2))
                _run_back(flow, grad, kept, weight, sums[2:], part.shape[2:])
        ctx.gradients = sums if needed else []
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, None, *(gradient.mul_(grad) for gradient in ctx.gradients))


def _run(flow: FoldedFlow, maps: Tensor, dtype: torch.dtype, kept: list[_Kept] | None) -> tuple[Tensor, Tensor]:
    """Stored maps `[B, C, hw]` after all steps, and the log-det so far `[B, hw]`.

    Channels lie in planes, which makes halves contiguous and mixing a copy of whole planes; convolutions want
    positions in rows, so their input and output are transposed.
    """
    size = maps.shape[2:]
    stored = maps.flatten(2).clone()
    log_det = torch.zeros_like(stored[:, 0])
    for step in flow.steps:
        read, changed = stored.tensor_split([len(step.offset_read)], dim=1)
        seen = _as_images(_transposed((read + step.offset_read[:, None]).to(dtype)), size)
        hidden = F.conv2d(seen, step.first_weight, step.first_bias, padding=_padding(step.first_weight)).relu_()
        raw = F.conv2d(hidden, step.last_weight, step.last_bias, padding=_padding(step.last_weight))
        raw = _transposed(_rows(raw))
        log_scale, shift = raw.chunk(2, dim=1)
        _, factor = _tanh_and_log_factor(step, log_scale, flow.clamp, stored.dtype)
        log_det += factor.sum(dim=1)
        scaled = factor.exp_().mul_(changed.add_(step.offset_changed[:, None]))
        torch.add(scaled, shift, out=changed)
        if kept is not None:
            kept.append(_Kept(seen, hidden, raw, scaled))
        stored = stored.index_select(1, step.mixing)
    return stored, log_det


def _tanh_and_log_factor(step: FoldedStep, raw: Tensor, clamp: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    tanh = torch.tanh(raw.to(dtype))
    return tanh, torch.add(step.log_gain[:, None], tanh, alpha=clamp)


def _run_back(
    flow: FoldedFlow, grad: Tensor, kept: list[_Kept], weight: float, sums: list[Tensor], size: Sequence[int]
) -> None:
    """Add to `sums` the gradients of the steps' tensors, from that of the stored maps."""
    # Each position's log-det has the gradient -weight.
    toll = torch.tensor(-weight * flow.clamp, dtype=grad.dtype, device=grad.device)
    for index in reversed(range(len(flow.steps))):
        step, (seen, hidden, raw, scaled) = flow.steps[index], kept.pop()
        offset_read, offset_changed, log_gain, *layers = sums[_TENSORS_OF_A_STEP * index :][:_TENSORS_OF_A_STEP]
        grad = grad.index_select(1, step.unmixing)
        grad_read, grad_changed = grad.tensor_split([len(step.offset_read)], dim=1)
        tanh, log_factor = _tanh_and_log_factor(step, raw.chunk(2, dim=1)[0], flow.clamp, grad.dtype)
        # times the clamp, which the tanh's slope has
        grad_log_scale = torch.add(toll, scaled.mul_(grad_changed), alpha=flow.clamp)
        log_gain += grad_log_scale.sum(dim=(0, 2)) / flow.clamp
        grad_raw = torch.empty_like(raw)
        grad_raw[:, : tanh.shape[1]] = torch.ops.aten.tanh_backward(grad_log_scale, tanh)
        grad_raw[:, tanh.shape[1] :] = grad_changed
        grad_changed.mul_(log_factor.exp_())
        offset_changed += grad_changed.sum(dim=(0, 2))
        grad_out = _as_images(_transposed(grad_raw), size)
        grad_hidden = _conv_back(grad_out, hidden, step.last_weight, layers[2], layers[3])
        grad_hidden = torch.ops.aten.threshold_backward(grad_hidden, hidden, 0)
        grad_seen = _conv_back(grad_hidden, seen, step.first_weight, layers[0], layers[1], to_input=index > 0)
        if grad_seen is None:  # nothing before the first step learns
            return
        grad_passed = _transposed(_rows(grad_seen)).to(grad.dtype)
        offset_read += grad_passed.sum(dim=(0, 2))
        grad_read += grad_passed


def _conv_back(
    grad: Tensor, x: Tensor, weight: Tensor, weight_sum: Tensor, bias_sum: Tensor, *, to_input: bool = True
) -> Any:
    """Gradient of a convolution's input, where it is asked for; those of its weight and bias are added up."""
    padding = _padding(weight)
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], [1, 1], padding, [1, 1], False, [0, 0], 1, [to_input, True, True]
    )
    weight_sum += grad_weight
    bias_sum += grad_bias
    return grad_x


def _parts(x: Tensor, images: int | None = None) -> Iterator[Tensor]:
    """A few images at a time, in planes; as many as suit the cache, where it is not said."""
    values = _VALUES_A_THREAD * torch.get_num_threads() if x.device.type == "cpu" else _VALUES_ON_ACCELERATOR
    size = images or max(1, values // x[0].numel())
    return (x[start : start + size].contiguous() for start in range(0, len(x), size))


def _cast(flow: FoldedFlow, dtype: torch.dtype) -> FoldedFlow:
    """Weights in the precision of the convolutions, laid out for rows."""

    def cast(weight: Tensor) -> Tensor:
        return weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)

    steps = [
        step._replace(
            first_weight=cast(step.first_weight),
            first_bias=step.first_bias.detach().to(dtype),
            last_weight=cast(step.last_weight),
            last_bias=step.last_bias.detach().to(dtype),
        )
        for step in flow.steps
    ]
    return flow._replace(steps=tuple(steps))


def _transposed(x: Tensor) -> Tensor:
    """`[B, n, m]` to `[B, m, n]`, in memory too.

    What is fastest was measured: a product with the identity, which is exact, for bfloat16 on matrix units; else one
    image after the other, for which copying has a blocked way.
    """
    if x.device.type != "cpu":
        return x.transpose(1, 2).contiguous()
    if x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        smaller = min(x.shape[1:])
        identity = torch.eye(smaller, dtype=x.dtype).expand(len(x), smaller, smaller)
        flipped = x.transpose(1, 2)
        return torch.bmm(flipped, identity) if smaller == x.shape[1] else torch.bmm(identity, flipped)
    result = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for target, source in zip(result, x, strict=True):
        target.copy_(source.t())
    return result


def _as_images(rows: Tensor, size: Sequence[int]) -> Tensor:
    """`[B, hw, C]` seen as `[B, C, h, w]`, channels-last."""
    return rows.view(len(rows), *size, -1).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    """`[B, C, h, w]`, channels-last, seen as `[B, hw, C]`."""
    return images.permute(0, 2, 3, 1).contiguous().flatten(1, 2)


def _padding(weight: Tensor) -> list[int]:
    return [weight.shape[2] // 2, weight.shape[3] // 2]


def _bias(layer: nn.Conv2d) -> Tensor:
    return layer.bias if layer.bias is not None else layer.weight.new_zeros(len(layer.weight))
