"""What an exported file says of itself."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from dracones.detectors import Detector
from dracones.export.deployed import Input, host_names
from dracones.export.graph import OPSET
from dracones.images.codecs import codec_versions
from dracones.runtime import FORMAT
from dracones.runtime.agreement import TOLERANCE

_LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy", "pillow", "timm")


def facts_of(detector: Detector, takes: Input) -> dict[str, Any]:
    """What the file says of itself."""
    record = detector.fitted()
    info, heat = detector.info, None
    if record.heat_range is not None:
        peaks, numbers = record.heat_range.state()
        heat = {"peaks": peaks.tolist(), **numbers}
    return {
        "format": FORMAT,
        "method": {"name": info.name, "citation": info.citation, "gives": list(info.gives)},
        "config": detector.config.model_dump(mode="json"),
        "preprocess": record.preprocess.model_dump(mode="json"),
        "input": takes._asdict(),
        "outputs": {
            "score": "larger = more anomalous",
            "p_value": "(1 + number of calibration scores >= score) / (n + 1); ties count as at least",
            "is_anomaly": "score > threshold",
            "map": "[H, W] of the image, larger = more anomalous; NaN where nothing was looked at",
        },
        "labels": {"0": "normal", "1": "anomalous"},
        "calibration": {
            "scores": np.asarray(record.calibration.scores, dtype=np.float64).tolist(),
            "threshold": record.threshold,
            "false_alarm_rate": record.false_alarm_rate,
            "confidence": record.confidence,
            "heat": heat,
        },
        "host": list(host_names(detector.method)),
        "codecs": codec_versions(),
        "tolerance": TOLERANCE,
        "opset": OPSET,
        "provenance": dict(record.provenance),
        "model": {"sha256": _digest(detector)},
        "versions": {name: found for name in _LIBRARIES if (found := _installed(name)) is not None},
    }


def _digest(detector: Detector) -> str:
    """A hash of the source model's tensors and configuration."""
    state = hashlib.sha256(json.dumps(detector.config.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in sorted(detector.method.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


def _installed(name: str) -> str | None:
    """The version of a library; none where it is not installed, as a graph of torch needs no onnx."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
