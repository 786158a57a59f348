"""Layers in whole numbers of 8 bits: the convolutions and linear layers of learnt weights, but for the first."""

import ast
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dracones.export.half import scopes_of

_KINDS = ("Conv", "Gemm", "MatMul")
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # constants are folded and batch norms gone: nothing to do

Feed = dict[str, NDArray[Any]]


def quantised(model: Any, learnt: Collection[str], batches: Iterable[Feed]) -> Any:
    """The ONNX model with its learnt layers in 8 bits: weights by channel, activations by the range that they take.

    The first layer stays in float32, as it looks at the image itself: with it in 8 bits the scores of a FastFlow change
    three times as much. So does what is computed without learnt weights: the treatment of the image, distances to a
    memory, the blur of a heat map, sums of log-determinants. Weights use 7 of the 8 bits, so that the sums of two
    products that older processors keep in 16 bits never overflow, and all processors multiply the same.

    Args:
        model: as `onnx_of` makes it, its nodes still telling the modules that they come from.
        learnt: names of the parameters.
        batches: inputs by name, whose activations set the ranges.

    Raises:
        ValueError: there is no such layer.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Ranges(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> Feed | None:
            return next(self.batches, None)

    layers = layers_of(model, learnt)[1:]
    if not layers:
        raise ValueError(
            "int8 has nothing to do: beside the first, no convolution or linear layer of the graph has learnt weights"
        )
    model.metadata_props.append(onnx.StringStringEntryProto(key=_PREPARED[0], value=_PREPARED[1]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.onnx"
        quantize_static(
            model,
            path,
            Ranges(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(_KINDS),
            nodes_to_quantize=layers,
        )
        return onnx.load(str(path))


def layers_of(model: Any, learnt: Collection[str]) -> list[str]:
    """Names of the nodes that multiply by learnt weights, in order; folding may have transposed and renamed these."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _KINDS
        and node.input[1] in constants
        and (node.input[1] in learnt or f"{_module_of(node)}.weight" in learnt)
    ]


def _module_of(node: Any) -> str:
    """The innermost module that a node comes from; the last scope is the operation's own."""
    scopes: list[str] = ast.literal_eval(scopes_of(node) or "[]")
    return scopes[-2] if len(scopes) > 1 else ""
