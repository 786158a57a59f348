"""A detector to and from its file."""

from pathlib import Path
from typing import Any

import torch

from dracones.calibration import Conformal
from dracones.detectors.detector import Detector
from dracones.detectors.heat_range import HeatRange
from dracones.detectors.record import Record
from dracones.files import storage
from dracones.images import Preprocess
from dracones.methods import build, method_class

_STATE, _CALIBRATION, _PEAKS = "state.", "calibration.", "peaks"


def save(detector: Detector, path: str | Path) -> Path:
    """Write a fitted detector; see `Detector.save`."""
    record, method = detector.fitted(), detector.method
    scores, calibration = record.calibration.state()
    peaks, heat = record.heat_range.state() if record.heat_range is not None else (None, None)
    header = {
        "method": method.info.name,
        "config": detector.config.model_dump(mode="json"),
        "image_shape": list(record.image_shape),
        "preprocess": record.preprocess.model_dump(mode="json"),
        "calibration": {
            **calibration,
            "threshold": record.threshold,
            "false_alarm_rate": record.false_alarm_rate,
            "confidence": record.confidence,
            "heat": heat,
        },
        "provenance": dict(record.provenance),
        **method.header_extras(),
    }
    tensors = {_STATE + name: tensor for name, tensor in method.saved_state().items()}
    tensors |= {_CALIBRATION + name: torch.as_tensor(array) for name, array in scores.items()}
    if peaks is not None:
        tensors[_CALIBRATION + _PEAKS] = torch.as_tensor(peaks)
    return storage.write(path, header, tensors)


def load(path: str | Path, *, device: str | torch.device = "cpu", **runtime: Any) -> Detector:
    """Read a detector that `Detector.save` wrote; nothing is unpickled.

    Args:
        path: the safetensors file.
        device: where to put it; scores agree between devices to 1e-5 in float32.
        runtime: objects that a file cannot hold, such as the ``classifier`` that a guard wraps.

    Raises:
        FileNotFoundError: no such file.
        ValueError: foreign, truncated, newer, or not fitting this version.
    """
    stored = storage.read(path)
    header = stored.header
    kind = method_class(header["method"])
    detector = Detector(kind(kind.Config.from_options(**header["config"]), **runtime))
    method = detector.method
    channels, height, width = header["image_shape"]
    build(method, (channels, height, width))
    try:
        method.restore(header, _under(_STATE, stored.tensors))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {kind.info.name} as this version builds it: {error}") from None
    method.to(device).eval()
    arrays = {name: tensor.numpy() for name, tensor in _under(_CALIBRATION, stored.tensors).items()}
    calibration, heat = header["calibration"], header["calibration"].get("heat")
    detector.know(
        Record(
            preprocess=Preprocess.model_validate(header["preprocess"]),
            image_shape=(channels, height, width),
            calibration=Conformal.from_state(arrays, calibration),
            false_alarm_rate=calibration["false_alarm_rate"],
            confidence=calibration.get("confidence"),
            threshold=calibration["threshold"],
            heat_range=None if heat is None else HeatRange.from_state(arrays[_PEAKS], heat),
            provenance=header["provenance"],
        )
    )
    return detector


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
