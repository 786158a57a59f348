"""A traced program in operations that torch's ONNX converter knows, without a second trace.

The converter has every program decomposed first, which runs all of it twice more with imagined tensors and takes as
long as the first trace. Of what detectors are made of, few operations need it, and each has a form that is known.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import getitem
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

_ATEN = torch.ops.aten


def lower(program: ExportedProgram) -> None:
    """Rewrite a program in place; what is not known here is left standing."""
    renamed: dict[str, str] = {}
    for module in program.graph_module.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        for node in list(module.graph.nodes):
            if node.target in _QUESTIONS and not node.users:
                module.graph.erase_node(node)
                continue
            rewrite = _REWRITES.get(node.target) if node.op == "call_function" else None
            if rewrite is None:
                continue
            with module.graph.inserting_before(node):
                made = rewrite(module.graph, node)
            if made is not None:
                node.replace_all_uses_with(_like(made, node))
                renamed[node.name] = made.name
                module.graph.erase_node(node)
        module.recompile()
    for output in program.graph_signature.output_specs:  # they are known by the names of their nodes
        while output.arg.name in renamed:
            output.arg = replace(output.arg, name=renamed[output.arg.name])


@contextmanager
def taken_as_it_is(program: ExportedProgram) -> Iterator[None]:
    """Have the converter find nothing to decompose."""
    program.run_decompositions = lambda *_: program  # it has no switch
    try:
        yield
    finally:
        del program.run_decompositions


def _like(made: fx.Node, node: fx.Node) -> fx.Node:
    """The new node, with what is known of the value that it stands for."""
    for key, known in node.meta.items():
        made.meta.setdefault(key, known)
    return made


def _cast(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """`to` in all its forms: another type, or nothing, as a graph has one device."""
    source = node.all_input_nodes[0]
    dtype = node.meta["val"].dtype
    if source.meta["val"].dtype == dtype:
        return source
    return graph.call_function(_ATEN._to_copy.default, (source,), {"dtype": dtype})


def _subtracted_from(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """`number - x`, which is `-x + number` to the last bit."""
    source, number = node.all_input_nodes[0], node.args[1]
    negative = graph.call_function(_ATEN.neg.default, (source,))
    return graph.call_function(_ATEN.add.Tensor, (_like(negative, source), number))


def _transposed(graph: fx.Graph, node: fx.Node) -> fx.Node:
    source = node.all_input_nodes[0]
    order = list(reversed(range(source.meta["val"].ndim)))
    return graph.call_function(_ATEN.permute.default, (source, order))


def _squared(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_function(_ATEN.mul.Tensor, (node.args[0], node.args[0]))


def _identity(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """`eye(n)`: where row and column are the same."""
    if len(node.args) != 1 or not isinstance(node.args[0], int):
        return None
    value = node.meta["val"]
    column = graph.call_function(_ATEN.arange.default, (node.args[0],))
    column.meta["val"] = value.new_empty(node.args[0], dtype=torch.int64)
    row = graph.call_function(_ATEN.unsqueeze.default, (column, 1))
    row.meta["val"] = column.meta["val"].unsqueeze(1)
    same = graph.call_function(_ATEN.eq.Tensor, (row, column))
    same.meta["val"] = value.new_empty(value.shape, dtype=torch.bool)
    return graph.call_function(_ATEN._to_copy.default, (same,), {"dtype": value.dtype})


def _both(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """`a & b` of truths."""
    if node.meta["val"].dtype != torch.bool:
        return None
    return graph.call_function(_ATEN.logical_and.default, node.args)


def _beside(target: Any) -> Callable[[fx.Graph, fx.Node], fx.Node | None]:
    """What was done in place, of a value that was just made and that nobody else reads, is done beside it."""

    def rewrite(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
        source = node.args[0]
        if not isinstance(source, fx.Node) or len(source.users) > 1:
            return None
        maker = source.args[0] if source.target is getitem else source  # of a BatchNorm, which gives three
        if not isinstance(maker, fx.Node) or maker.target not in _MAKES_ANEW:
            return None
        return graph.call_function(target, node.args, node.kwargs)

    return rewrite


def _normalised(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """BatchNorm as it is when nothing is learnt."""
    source, weight, bias, mean, variance, training, momentum, epsilon, *_ = node.args
    if training or weight is None:
        return None
    target = _ATEN._native_batch_norm_legit_no_training.default
    made = graph.call_function(target, (source, weight, bias, mean, variance, momentum, epsilon))
    value = node.meta["val"]
    made.meta["val"] = (value, value.new_empty(0), value.new_empty(0))
    return graph.call_function(getitem, (made, 0))


_QUESTIONS = {_ATEN.promote_types.default}
"""What tracing leaves behind that computes nothing: its answer is in the types of other nodes."""

_MAKES_ANEW = {
    _ATEN._to_copy.default,
    _ATEN.add.Tensor,
    _ATEN.conv2d.default,
    _ATEN.conv2d.padding,
    _ATEN.linear.default,
    _ATEN._native_batch_norm_legit_no_training.default,
}
"""Operations whose result is no view of another value."""

_REWRITES: dict[object, Callable[[fx.Graph, fx.Node], fx.Node | None]] = {
    **dict.fromkeys((_ATEN.to.dtype, _ATEN.to.device, _ATEN.to.dtype_layout, _ATEN.to.other), _cast),
    _ATEN.rsub.Scalar: _subtracted_from,
    _ATEN.numpy_T.default: _transposed,
    _ATEN.square.default: _squared,
    _ATEN.eye.default: _identity,
    _ATEN.__and__.Tensor: _both,
    _ATEN.div_.Tensor: _beside(_ATEN.div.Tensor),
    _ATEN.relu_.default: _beside(_ATEN.relu.default),
    _ATEN.add_.Tensor: _beside(_ATEN.add.Tensor),
    _ATEN.batch_norm.default: _normalised,
}
