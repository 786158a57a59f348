"""OpenVINO's form of an exported file, made ready to run on this machine's processor."""

import json
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.runtime.container import UnfitFileError

ROOM, OUTPUTS = "dracones", "outputs"


@cache
def the_core() -> Any:
    """OpenVINO itself, once a process and never let go.

    Each core's CPU plugin gives signals a stack of its own, and takes it away when it goes, in whatever order; a thread
    may then still point to it, and the next signal, Ctrl-C or a service's SIGTERM, would end the process.
    """
    import openvino

    return openvino.Core()


class OpenVinoSession:
    """Runs a graph as `Session` does, in float32: left alone, OpenVINO takes bfloat16 where the processor has it.

    Args:
        data: an ``.xml``, or an ONNX graph.
        name: of the file, for messages.
        weights: the ``.bin`` beside an ``.xml``.

    Raises:
        ImportError: openvino is not installed.
        UnfitFileError: no graph, or one with an operation that this OpenVINO lacks.
    """

    def __init__(self, data: bytes, name: str, weights: bytes | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ImportError(
                "files that end in .xml are run by openvino, which is not installed: pip install 'dracones[openvino]'"
            ) from error
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count() or 1
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads}
        try:
            core = the_core()
            model = core.read_model(data) if weights is None else core.read_model(data, weights)
            self._compiled = core.compile_model(model, "CPU", options)
        except Exception as error:  # each of its kinds means the same here
            raise UnfitFileError(
                f"{name} cannot be run by openvino {openvino.__version__}: {str(error).strip().splitlines()[-1]}; the "
                "file is cut off or none of OpenVINO's, or this version lacks an operation (update openvino)"
            ) from error
        self.metadata = _metadata(model)
        # A conversion may lose the outputs' names; their order stays.
        names = json.loads(self.metadata.get(OUTPUTS, "[]"))
        self.outputs: list[str] = names or [str(i) for i in range(len(model.outputs))]

    def run(self, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, for inputs in the graph's order."""
        answers = self._compiled([np.ascontiguousarray(array) for array in arrays])
        # Copied: the next run writes where this one's answers lie.
        return {name: np.array(answers[i]) for i, name in enumerate(self.outputs)}


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info([ROOM]):
        return {}
    keys = model.get_rt_info([ROOM]).astype(dict)
    return {key: model.get_rt_info([ROOM, key]).astype(str) for key in keys}
