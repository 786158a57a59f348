"""An ONNX graph in OpenVINO's form: an ``.xml`` and the ``.bin`` that holds its weights."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dracones.runtime.openvino import OUTPUTS, ROOM, the_core


def openvino_of(graph: bytes, outputs: Sequence[str], metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    """``.xml`` and ``.bin`` of an ONNX graph; weights stay float32, metadata stand in the ``.xml``.

    Raises:
        ImportError: openvino is not installed.
        ValueError: OpenVINO has no form for an operation.
    """
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "writing .xml needs openvino, which is not installed: pip install 'dracones[openvino]'"
        ) from error
    try:
        model = the_core().read_model(graph)
    except Exception as error:
        raise ValueError(f"the graph has no form in OpenVINO: {str(error).strip().splitlines()[-1]}") from error
    for key, value in {**metadata, OUTPUTS: json.dumps(list(outputs))}.items():
        model.set_rt_info(value, [ROOM, key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
