"""Couplings: change some positions by what is read from others."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import override

from dracones.flows.bijection import Bijection, Pattern, sum_events
from dracones.flows.conditioners.contextual import ContextConditioner
from dracones.flows.scales import make_scale
from dracones.flows.selection import Selection
from dracones.flows.trace import TraceStep

ConditionerFactory = Callable[[int, int], nn.Module]


class Coupling(Bijection):
    """What every coupling shares: who is read, who is changed, and the conditioner between them.

    `reads` and `changes` are boolean: over channels, `[C]`, or over positions, `[C, H, W]` (see `masks`). Positions in
    neither pass through. With channel masks the conditioner sees only the channels read, with spatial masks the whole
    image with zeros where nothing is read. It is a module of one tensor, or a factory called with the number of
    input channels (context included) and of output channels. The context is further input channels, unless the
    conditioner is a `ContextConditioner` and takes it by itself.
    """

    outputs_per_channel: int
    shift_first = True
    reads: Tensor
    changes: Tensor

    def __init__(
        self,
        reads: Tensor,
        conditioner: nn.Module | ConditionerFactory,
        *,
        changes: Tensor | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        changes = _checked_changes(type(self).__name__, reads, changes)
        self.register_buffer("reads", reads.clone())
        self.register_buffer("changes", changes.clone())
        self.context_features = context_features
        self.spatial = reads.dim() == 3
        count = reads.shape[0] if self.spatial else int(reads.sum())
        self.changed_channels = changes.shape[0] if self.spatial else int(changes.sum())
        if isinstance(conditioner, nn.Module):
            self.conditioner = conditioner
        else:
            self.conditioner = conditioner(count + context_features, self.outputs_per_channel * self.changed_channels)
        self._index_channels()

    @property
    @override
    def x_pattern(self) -> Pattern:
        return tuple(self.reads.shape) if self.spatial else (self.reads.shape[0], ...)

    @abstractmethod
    def _split(self, raw: Tensor) -> tuple[Tensor | None, Tensor]:
        """(s or None, t) from the conditioner's output, over the changed channels."""

    def _forwards(self, x: Tensor, s: Tensor | None, t: Tensor) -> Tensor:
        if s is None:
            return x + t
        return (x + t) * s.exp() if self.shift_first else torch.addcmul(t, x, s.exp())

    def _backwards(self, z: Tensor, s: Tensor | None, t: Tensor) -> Tensor:
        if s is None:
            return z - t
        return z * (-s).exp() - t if self.shift_first else (z - t) * (-s).exp()

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        s, t = self._terms(x, context)
        return self._write(x, self._forwards(self._changed(x), s, t)), self._log_det(x, s)

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        s, t = self._terms(z, context)  # what is read has passed through unchanged
        return self._write(z, self._backwards(self._changed(z), s, t)), self._log_det(z, s)

    @override
    def _encode_map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        s, t = self._terms(x, context)
        z = self._write(x, self._forwards(self._changed(x), s, t))
        return z, x.new_zeros(x.shape[0], *x.shape[2:]) if s is None else s.sum(1)

    def recompute(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(x, z, log_det) from z: x a new leaf, z and log_det its differentiable functions.

        What constant-memory training runs backwards; the conditioner is evaluated once, not once per direction.
        """
        x = z.detach().clone().requires_grad_()
        s, t = self._terms(x, context)  # x holds z for now, but what is read is the same in both
        with torch.no_grad():
            # Through .data: the graph of s and t hangs on the read part of x, which keeps its values.
            x.data.copy_(self._write(z, self._backwards(self._changed(z), s, t)))
        return x, self._write(x, self._forwards(self._changed(x), s, t)), self._log_det(x, s)

    def trace(self, x: Tensor, context: Tensor | None = None) -> list[TraceStep]:
        """One step, with s and t in the layout of x, zero where nothing is changed."""
        self._check("trace", x, self.x_pattern, context)
        s, t = self._terms(x, context)
        z = self._write(x, self._forwards(self._changed(x), s, t))
        zeros = torch.zeros_like(x)
        return [
            TraceStep(
                name="",
                layer=self,
                input=x,
                output=z,
                log_det=self._log_det(x, s),
                s=zeros if s is None else self._write(zeros, s),
                t=self._write(zeros, t),
                per_position=None if s is None else s.sum(1),
            )
        ]

    def _terms(self, x: Tensor, context: Tensor | None) -> tuple[Tensor | None, Tensor]:
        seen = x * self.reads.to(x.dtype) if self.spatial else self._read.take(x)
        s, t = self._split(self._checked_output(self._condition(seen, context), x))
        t = t.to(x.dtype)
        s = None if s is None else s.to(x.dtype)
        if self.spatial:
            changes = self.changes.to(x.dtype)
            return None if s is None else s * changes, t * changes
        return s, t

    def _condition(self, seen: Tensor, context: Tensor | None) -> Tensor:
        output: Tensor
        if not self.context_features:
            output = self.conditioner(seen)
        elif isinstance(self.conditioner, ContextConditioner):
            output = self.conditioner(seen, self._checked_context(context, seen))
        else:
            around = self._checked_context(context, seen).expand(seen.shape[0], -1, *seen.shape[2:])
            output = self.conditioner(torch.cat([seen, around.to(seen.dtype)], 1))
        return output

    def _checked_output(self, raw: Tensor, x: Tensor) -> Tensor:
        expected = (x.shape[0], self.outputs_per_channel * self.changed_channels, *x.shape[2:])
        if raw.shape != expected:  # fewer channels would broadcast and pass unnoticed
            raise ValueError(
                f"{type(self).__name__}: expected the conditioner to give a shape {list(expected)}, "
                f"{self.outputs_per_channel} per changed channel; got {list(raw.shape)}"
            )
        return raw

    def _checked_context(self, context: Tensor | None, like: Tensor) -> Tensor:
        """The context with as many dimensions as the maps."""
        if context is None or context.shape[1] != self.context_features or context.shape[0] not in (1, like.shape[0]):
            raise ValueError(
                f"{type(self).__name__}: expected a context of shape [{like.shape[0]}, {self.context_features}, ...]; "
                f"got {None if context is None else list(context.shape)}"
            )
        return context.reshape(*context.shape, *(1 for _ in range(like.dim() - context.dim())))

    def _changed(self, x: Tensor) -> Tensor:
        return x if self.spatial else self._change.take(x)

    def _write(self, x: Tensor, values: Tensor) -> Tensor:
        return values if self.spatial else self._change.put(x, values)

    def _index_channels(self) -> None:
        if not self.spatial:
            self._read, self._change = Selection(self.reads), Selection(self.changes)

    @override
    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._index_channels()  # the masks are part of the state: what derives from them follows

    def _log_det(self, x: Tensor, s: Tensor | None) -> Tensor:
        return x.new_zeros(x.shape[0]) if s is None else sum_events(s)

    @override
    def extra_repr(self) -> str:
        where = "x".join(map(str, self.reads.shape))
        return f"mask {where}: reads {int(self.reads.sum())}, changes {int(self.changes.sum())}"


class AffineCoupling(Coupling):
    """`z = (x + t) exp(s)` on the changed positions, s and t from the positions read (Dinh et al. 2017, equation 7).

    `scale` bounds s: `"tanh"` (Kirichenko et al. 2020), `"atan"` (DifferNet), `"sigmoid"` (Glow), or a module of
    `scales`.
    `shift_first=False` gives `z = x exp(s) + t`, the other convention; `shift_gain` multiplies t. In the first form
    `-t` is the flow's prediction of the changed positions. log|det| is the sum of s.

    Example:
        >>> from dracones.flows import MLP, channels
        >>> coupling = AffineCoupling(channels(4), MLP)
        >>> z, log_det = coupling.encode(torch.ones(2, 4))
        >>> z.shape, log_det                                   # zeros at the end: a new coupling is the identity
        (torch.Size([2, 4]), tensor([0., 0.], grad_fn=<SumBackward1>))
    """

    outputs_per_channel = 2

    def __init__(
        self,
        reads: Tensor,
        conditioner: nn.Module | ConditionerFactory,
        *,
        changes: Tensor | None = None,
        scale: str | nn.Module = "tanh",
        shift_first: bool = True,
        shift_gain: float = 1.0,
        context_features: int = 0,
    ) -> None:
        super().__init__(reads, conditioner, changes=changes, context_features=context_features)
        self.scale = make_scale(scale, self.changed_channels)
        self.shift_first = shift_first
        self.shift_gain = shift_gain

    @override
    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        s, t = raw.float().chunk(2, 1) if raw.dtype in (torch.bfloat16, torch.float16) else raw.chunk(2, 1)
        return self.scale(s), t if self.shift_gain == 1 else t * self.shift_gain

    @override
    def extra_repr(self) -> str:
        form = "(x + t) exp(s)" if self.shift_first else "x exp(s) + t"
        return f"{super().extra_repr()}, {form}"


class AdditiveCoupling(Coupling):
    """`z = x + t` on the changed positions: constant volume, log|det| = 0 (Dinh et al. 2015, NICE, equation 9).

    Example:
        >>> from dracones.flows import MLP, channels
        >>> AdditiveCoupling(channels(4), MLP).encode(torch.ones(1, 4))[1]
        tensor([0.])
    """

    outputs_per_channel = 1

    @override
    def _split(self, raw: Tensor) -> tuple[None, Tensor]:
        return None, raw


def _checked_changes(name: str, reads: Tensor, changes: Tensor | None) -> Tensor:
    if reads.dtype != torch.bool or (changes is not None and changes.dtype != torch.bool):
        raise TypeError(f"{name}: expected boolean masks; got {(reads if changes is None else changes).dtype}")
    changes = ~reads if changes is None else changes
    if reads.dim() not in (1, 3) or reads.shape != changes.shape:
        raise ValueError(
            f"{name}: expected two masks of one shape, [C] or [C, H, W]; got reads {list(reads.shape)} and changes "
            f"{list(changes.shape)}"
        )
    if bool((reads & changes).any()):
        both = int((reads & changes).sum())
        raise ValueError(f"{name}: {both} positions are both read and changed, which cannot be inverted")
    if not bool(changes.any()) or not bool(reads.any()):
        empty = "changes" if bool(reads.any()) else "reads"
        raise ValueError(f"{name}: the mask {empty} nothing; a coupling reads and changes at least one position each")
    return changes
