"""An ONNX graph made ready to run on this machine's processor."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.runtime.container import UnfitFileError


class Session:
    """Runs a graph; threads as many as ``OMP_NUM_THREADS`` says, all cores where it says nothing.

    Args:
        data: an ONNX graph.
        name: of the file, for messages.
        fused: whether operations are joined as suits this processor; else each is computed as it stands, and what is
            stored in 8 bits in float32.

    Raises:
        ImportError: onnxruntime is not installed.
        UnfitFileError: no graph, or one with an operator that this onnxruntime lacks.
    """

    def __init__(self, data: bytes, name: str, *, fused: bool = True) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                "exported files are run by onnxruntime, which is not installed: pip install 'dracones[export]'"
            ) from error
        options = onnxruntime.SessionOptions()
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or os.cpu_count() or 1
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each of onnxruntime's many kinds means the same here
            raise UnfitFileError(
                f"{name} cannot be run by onnxruntime {onnxruntime.__version__}: {str(error).splitlines()[0]}; the "
                "file is cut off or no ONNX file, or this version lacks an operator (update onnxruntime)"
            ) from error
        self.outputs = [each.name for each in self._session.get_outputs()]
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, for inputs in the graph's order."""
        feeds = {name: np.ascontiguousarray(array) for name, array in zip(self.inputs, arrays, strict=True)}
        return dict(zip(self.outputs, self._session.run(None, feeds), strict=True))
