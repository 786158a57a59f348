"""Programs from ``torch.export`` as classifiers whose last linear layer can be read."""

from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

# Name given to the last linear layer, which an exported graph holds as a bare operation.
HEAD = "dracones_head"


def load_exported(path: str | Path) -> nn.Module:
    """The program in a file that ``torch.export.save`` wrote, as a module with its last linear layer restored.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an exported program, or one exported in training mode.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no exported program at {path}")
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise ValueError(f"{path} is not a program of torch.export that this torch reads: {error}") from None
    return as_classifier(program)


def as_classifier(program: torch.export.ExportedProgram) -> nn.Module:
    """An exported program as a module; its last linear operation becomes a ``torch.nn.Linear`` again.

    Raises:
        ValueError: exported in training mode, where BatchNorm and dropout make a score depend on its batch.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> module = as_classifier(torch.export.export(net, (torch.zeros(2, 1, 2, 2),)))
    >>> module.get_submodule(HEAD)
    Linear(in_features=4, out_features=2, bias=True)
    """
    module = program.module()
    if not isinstance(module, fx.GraphModule):
        return module
    _refuse_training(module)
    _restore_head(module)
    for submodule in module.modules():
        submodule.training = False
    return module


def _refuse_training(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        name = str(node.target)
        training = (
            (name.startswith("aten.batch_norm") and len(node.args) > 5 and node.args[5] is True)
            or (name.startswith("aten.dropout") and len(node.args) > 2 and node.args[2] is True)
            or name.startswith("aten._native_batch_norm_legit.default")
            or (name.startswith("aten.native_batch_norm.default") and len(node.args) > 5 and node.args[5] is True)
        )
        if training:
            raise ValueError(
                f"the program was exported in training mode ({name}): its answer for an image depends on the batch; "
                "call model.eval() before torch.export.export"
            )


def _restore_head(module: fx.GraphModule) -> None:
    """Swap the last ``aten.linear`` for a call of a Linear with the same tensors, so that hooks can read its input."""
    graph = module.graph
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.linear.default:
            continue
        features, weight, *rest = node.args
        tensors = [_held(module, weight), *[_held(module, argument) for argument in rest]]
        if any(tensor is None for tensor in tensors):
            return
        linear = nn.Linear(tensors[0].shape[1], tensors[0].shape[0], bias=len(tensors) > 1, device="meta")
        linear.weight = tensors[0]
        if len(tensors) > 1:
            linear.bias = tensors[1]
        module.add_submodule(HEAD, linear)
        with graph.inserting_before(node):
            call = graph.call_module(HEAD, (features,))
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        module.recompile()
        return


def _held(module: fx.GraphModule, node: Any) -> Any:
    """The parameter that a ``get_attr`` node reads."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    owner, _, leaf = str(node.target).rpartition(".")
    held = getattr(module.get_submodule(owner), leaf)
    return held if isinstance(held, nn.Parameter) else None
