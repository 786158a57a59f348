"""Weights kept as halves: a file of nearly half the size that computes in float32 all the same."""

from collections.abc import Iterator
from typing import Any

import numpy as np

_SCOPES = "pkg.torch.onnx.name_scopes"
_LEAST = 1024  # values: below, nothing is won
_ERROR = 2.0**-11  # what rounding to half costs a value of its range


def half_weights(model: Any) -> Any:
    """The same ONNX model with the method's large tables of numbers as float16, each cast back where it is read.

    What lies outside the method (the treatment of the image, the calibration table, the threshold) is left alone, and
    so is a table that a half cannot hold: one whose largest error by rounding is more than 2^-11 of its largest value.

    Args:
        model: as `onnx_of` makes it, its nodes still telling the modules that they come from.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for tensor in _of_the_method(graph):
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
            off = np.abs(halves.astype(np.float32) - values).max()
        if not off <= _ERROR * np.abs(values).max():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    for i, cast in enumerate(casts):
        graph.node.insert(i, cast)
    return model


def _of_the_method(graph: Any) -> Iterator[Any]:
    """Tables of float32 that the method's nodes read, and nothing else does.

    A node without a scope (what the folding of constants leaves) stands for those that read its outputs.
    """
    from onnx import TensorProto

    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def belongs(node: Any) -> bool:
        scopes = scopes_of(node)
        if scopes:
            return "'pipeline.method" in scopes
        after = [reader for name in node.output for reader in readers.get(name, [])]
        return bool(after) and all(belongs(reader) for reader in after)

    outputs = {each.name for each in graph.output}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or np.prod(tensor.dims) < _LEAST:
            continue
        read = readers.get(tensor.name, [])
        if tensor.name not in outputs and read and all(belongs(node) for node in read):
            yield tensor


def scopes_of(node: Any) -> str:
    """The modules that a node comes from, from the outermost inwards; empty where it does not tell."""
    return next((each.value for each in node.metadata_props if each.key == _SCOPES), "")
