"""A detector's graph in other formats."""

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from dracones.export.deployed import Input
from dracones.export.lowering import lower, taken_as_it_is

OPSET = 21
_FOLDED = 2**22  # values: the matrices that resize an image of known size


def free_sizes(takes: Input) -> dict[int, Any]:
    """Which sides of the images are free: the batch, and where images are resized, height and width."""
    return {0: "batch"} if takes.size is not None else {0: "batch", 2: "height", 3: "width"}


def program_of(module: nn.Module, arguments: tuple[Tensor, ...], takes: Input) -> torch.export.ExportedProgram:
    """The module traced with free sizes; `arguments` are images and perhaps host inputs.

    Raises:
        ValueError: it looks at values or sizes that are free.
    """
    free = {0: torch.export.Dim.DYNAMIC}
    sides = dict.fromkeys(free_sizes(takes), torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return torch.export.export(
                module, arguments, dynamic_shapes=(sides, *[free for _ in arguments[1:]]), strict=False
            )
    except Exception as error:  # torch's tracer has many kinds, which mean the same here
        raise ValueError(f"the graph cannot be traced: {str(error).splitlines()[0]}") from error


def onnx_of(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The program as an ONNX model (protobuf).

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: an operation has no form in ONNX.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"exporting needs {error.name}, which is not installed: pip install 'dracones[export]'"
        ) from error
    lower(program)
    try:
        with taken_as_it_is(program):
            return _converted(program, inputs, outputs)
    except Exception:  # an operation that is known to torch's decompositions alone
        try:
            return _converted(program, inputs, outputs)
        except Exception as error:
            raise ValueError(f"the graph has no form in ONNX: {str(error).strip().splitlines()[-1]}") from error


def _converted(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    import onnx_ir.passes.common as passes
    from onnxscript.optimizer import fold_constants_ir

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            optimize=False,
            verbose=False,
        )
    if made is None:
        raise ValueError("torch.onnx.export made no program")
    # Constants are folded, for runtimes that do not. Its rewriting, which takes as long as all else together, is left
    # out: runtimes do it when they load.
    graph = made.model
    passes.InlinePass()(graph)
    fold_constants_ir(graph, input_size_limit=_FOLDED, output_size_limit=_FOLDED)
    for each in (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        each(graph)
    return made.model_proto


def plain(model: Any) -> Any:
    """A copy of an ONNX model without what its converter noted of where each node comes from: paths and code lines."""
    made = type(model)()
    made.CopyFrom(model)
    del made.graph.metadata_props[:]
    del made.graph.value_info[:]
    for node in made.graph.node:
        del node.metadata_props[:]
    return made
