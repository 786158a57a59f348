"""Find the layer whose output is the logits, by comparing values in one watched pass."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dracones.methods.guards.outputs import LinearHead
from dracones.methods.guards.pooling import Pool
from dracones.methods.guards.watching import Call, Product, Watch

# Half precision and autocast round at about 1e-2 of the logits' size.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class FoundLayer:
    """Where features are read.

    Attributes:
        names: of the modules; several for the heads of an ensemble, whose features are joined.
        side: whether their input or their output is read.
        pool: how it is brought to rows.
        head: the linear map where ``head(features)`` is the logits, else ``None``.
        note: what to know where the head was not found by its values; else empty.
    """

    names: tuple[str, ...]
    side: Literal["input", "output"]
    pool: Pool
    head: LinearHead | None = field(default=None, compare=False)
    note: str = ""

    @property
    def name(self) -> str:
        """Of the last module read."""
        return self.names[-1]


def find_layer(watch: Watch, logits: Tensor, layer: str | None) -> FoundLayer:
    """The layer to read, and the linear map from there to the logits.

    Without a name: the input of the layer whose output *is* the logits (also up to a constant factor, averaged over
    space or tokens, or as the mean of several heads), whatever it is made of: parametrised, called by keyword,
    a product without a module. Where no layer's output is the logits, the last linear one is taken and
    ``note`` says so.

    Raises:
        ValueError: no such layer; the layers that ran last are named.
    """
    found = _by_value(watch, logits)
    if layer is None:
        return found or _last_linear(watch, logits)
    calls = [call for call in watch.calls if call.name == layer]
    if not calls:
        raise ValueError(f"layer {layer!r} did not run in the classifier's forward pass; name another layer")
    return _named(calls[-1], watch, found, logits)


def _by_value(watch: Watch, logits: Tensor) -> FoundLayer | None:
    opaque: FoundLayer | None = None
    matching = [call for call in watch.calls if _gives_logits(call, logits) and not _passes_on(call, logits)]
    # The innermost: a container that ends in the head gives the logits as well.
    outer = {name for call in matching for name in _owners(call.name)}
    for call in reversed([call for call in matching if call.name not in outer]):
        for how, rows in call.entered.items():
            head = _module_head(call, rows, logits)
            if head is not None:
                return FoundLayer((call.name,), "input", how, head)
        if opaque is None and call.entered and _holds_weights(call, watch):
            how, rows = next(iter(call.entered.items()))
            opaque = FoundLayer((call.name,), "input", how, note=_opaque_note(call, rows.shape[1]))
    return _ensemble(watch, logits) or _product(watch, logits) or opaque


def _passes_on(call: Call, logits: Tensor) -> bool:
    """Whether the logits went in already: a dropout, an identity, a temperature after the head."""
    return any(_factor(rows, logits) is not None for rows in call.entered.values())


def _gives_logits(call: Call, logits: Tensor) -> bool:
    return any(_factor(rows, logits) is not None for rows in call.left.values())


def _owners(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _holds_weights(call: Call, watch: Watch) -> bool:
    """Whether it is a head of its own making: weights, and no linear layer inside that ran."""
    inside = [other for other in watch.calls if other.name.startswith(call.name + ".")]
    ran = any(isinstance(other.module, (nn.Linear, nn.Conv2d)) for other in inside)
    return not ran and not isinstance(call.module, nn.Conv2d) and next(call.module.parameters(), None) is not None


def _module_head(call: Call, rows: Tensor, logits: Tensor) -> LinearHead | None:
    """The layer as a linear map: by its own weights, or by what it makes of unit vectors."""
    weight = getattr(call.module, "weight", None)
    if isinstance(call.module, (nn.Linear, nn.Conv2d)) and isinstance(weight, Tensor) and weight.is_floating_point():
        if weight[0].numel() != rows.shape[1]:
            return None
        bias = call.module.bias
        found = LinearHead(
            weight.detach().flatten(1).float(),
            weight.new_zeros(len(weight)).float() if not isinstance(bias, Tensor) else bias.detach().float(),
        )
        return _scaled(found, rows, logits)
    width = rows.shape[1]
    if width > 8192 or call.input_shape[1:2] != (width,):
        return None
    shape = (width, width, *(1,) * (len(call.input_shape) - 2))
    try:
        zero = call.module(rows.new_zeros((1, *shape[1:])))
        units = call.module(torch.eye(width, dtype=rows.dtype, device=rows.device).reshape(shape))
        offset = zero.flatten(1).float()
        weight = (units.flatten(1).float() - offset).T.contiguous()
        head = LinearHead(weight, offset[0])
        # What is only nearly linear around these images is no linear map.
        missed = (head(rows.float()) - call.module(rows.reshape(len(rows), *shape[1:])).flatten(1).float()).abs().max()
        spread = (logits - logits.mean(dim=0)).abs().max()
        return _scaled(head, rows, logits) if bool(missed <= 0.01 * spread) else None
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return None  # not a map of single rows


def _scaled(head: LinearHead, features: Tensor, logits: Tensor) -> LinearHead | None:
    """The map times the factor that makes its product the logits; ``None`` where none does."""
    got = head(features.float())
    factor = _factor(got, logits)
    if factor is None:
        return None
    return head if abs(factor - 1) < 1e-2 else LinearHead(head.weight * factor, head.bias * factor)


def _factor(rows: Tensor, logits: Tensor) -> float | None:
    """The constant that turns rows into the logits, to rounding; ``None`` where there is none."""
    if rows.shape != logits.shape:
        return None
    rows, logits = rows.double(), logits.double()
    square = float(rows.square().sum())
    factor = float((rows * logits).sum()) / square if square > 0 else 0.0
    if not factor > 0:
        return None
    factor = 1.0 if abs(factor - 1) < 1e-2 else factor
    close = (rows * factor - logits).abs().max() <= _TOLERANCE * logits.abs().max().clamp_min(1e-6)
    return factor if bool(close) else None


def _ensemble(watch: Watch, logits: Tensor) -> FoundLayer | None:
    """Several linear heads whose mean or sum is the logits: a distilled transformer, an ensemble."""
    last = {c.name: c for c in watch.calls if isinstance(c.module, nn.Linear) and c.output_shape == logits.shape}
    heads = list(last.values())
    if len(heads) < 2:
        return None
    factor = _factor(torch.stack([c.left["rows"].float() for c in heads]).sum(dim=0), logits)
    if factor is None:
        return None
    linears = [c.module for c in heads if isinstance(c.module, nn.Linear)]
    weight = torch.cat([linear.weight.detach().float() for linear in linears], dim=1) * factor
    zeros = weight.new_zeros(len(weight))
    biases = [zeros if linear.bias is None else linear.bias.detach().float() for linear in linears]
    bias = torch.stack(biases).sum(dim=0) * factor
    return FoundLayer(tuple(c.name for c in heads), "input", "rows", LinearHead(weight, bias))


def _product(watch: Watch, logits: Tensor) -> FoundLayer | None:
    """A product that no module holds; its features are read where a module gives them."""
    for product in reversed(watch.products):
        if _factor(product.result, logits) is None:
            continue
        read = _source(watch, product)
        if read is not None:
            call, how = read
            zeros = product.weight.new_zeros(len(product.weight))
            bias = zeros if product.bias is None else product.bias
            head = LinearHead(product.weight.detach().float(), bias.detach().float())
            return FoundLayer((call.name,), "output", how, _scaled(head, product.features, logits))
    return None


def _source(watch: Watch, product: Product) -> tuple[Call, Pool] | None:
    for call in reversed(watch.calls):
        for how, rows in call.left.items():
            if _same(rows, product.features):
                return call, how
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def _last_linear(watch: Watch, logits: Tensor) -> FoundLayer:
    for call in reversed(watch.calls):
        if isinstance(call.module, nn.Linear) and call.entered:
            how = next(iter(call.entered))
            return FoundLayer((call.name,), "input", how, note=_opaque_note(call, call.entered[how].shape[1]))
    for call in reversed(watch.calls):
        if isinstance(call.module, nn.Conv2d) and call.module.out_channels == logits.shape[1] and call.entered:
            return FoundLayer((call.name,), "input", next(iter(call.entered)))
    last = ", ".join(repr(c.name) for c in watch.calls[-6:] if c.is_leaf) or "none: the model is one opaque call"
    raise ValueError(
        "found no last linear layer in the classifier, so it is not known which features to read; name a layer "
        f"(layer=...), the last that ran were {last}; or use a score of logits (msp, energy, ...)"
    )


def _opaque_note(call: Call, width: int) -> str:
    return (
        f"no linear layer's output is the classifier's logits; features are the {width} numbers that go into layer "
        f"{call.name!r} ({type(call.module).__name__}); name another with layer=..., whose output is then read"
    )


def _named(call: Call, watch: Watch, found: FoundLayer | None, logits: Tensor) -> FoundLayer:
    if not call.left:
        raise ValueError(f"layer {call.name!r} gives no tensor [B, ..., F] of features; name another layer")
    if found is not None and found.head is not None:
        for how, rows in call.left.items():
            if rows.shape[1] == found.head.weight.shape[1] and _factor(found.head(rows.float()), logits) == 1.0:
                return FoundLayer((call.name,), "output", how, found.head)
    return FoundLayer((call.name,), "output", _usual(call, watch))


def _usual(call: Call, watch: Watch) -> Pool:
    """Averaged over space; which axes those are follows from the layers inside and after, and from the shape."""
    ways = tuple(call.left)
    if "space_last" not in ways:
        return ways[0]
    last, first = call.output_shape[-1], call.output_shape[1]
    position = next(i for i, other in enumerate(watch.calls) if other is call)
    near = [c for c in watch.calls if c.name.startswith(call.name)] + watch.calls[position : position + 8]
    ends = {w for c in near for w in _widths(c.module, channels_last=True)}
    starts = {w for c in near for w in _widths(c.module, channels_last=False)}
    if (last in ends) != (first in starts):
        return "space_last" if last in ends else "space"
    square = call.output_shape[1] == call.output_shape[2] != call.output_shape[3]
    return "space_last" if square else "space"


def _widths(module: nn.Module, *, channels_last: bool) -> tuple[int, ...]:
    if channels_last:
        if isinstance(module, nn.LayerNorm):
            return (module.normalized_shape[-1],)
        return (module.out_features,) if isinstance(module, nn.Linear) else ()
    if isinstance(module, nn.Conv2d):
        return (module.out_channels,)
    return (module.num_features,) if isinstance(module, nn.BatchNorm2d) else ()
