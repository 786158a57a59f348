"""A detector to and from its file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dracones.calibration import Conformal
from dracones.detectors.fitting import build
from dracones.detectors.heat_range import HeatRange
from dracones.files import storage
from dracones.images import Preprocess
from dracones.methods.registry import detector_class

if TYPE_CHECKING:
    from dracones.detectors.detector import Detector

_STATE, _CALIBRATION, _PEAKS = "state.", "calibration.", "peaks"


def save(detector: "Detector", path: str | Path) -> Path:
    """Write a fitted detector; see `Detector.save`."""
    preprocess, image_shape = detector.require_fitted()
    scores, calibration = detector.calibration.state()
    peaks, heat = detector.heat_range.state() if detector.heat_range is not None else (None, None)
    header = {
        "method": detector.info.name,
        "config": detector.config.model_dump(mode="json"),
        "image_shape": list(image_shape),
        "preprocess": preprocess.model_dump(mode="json"),
        "calibration": {
            **calibration,
            "threshold": detector.threshold,
            "false_alarm_rate": detector.false_alarm_rate,
            "heat": heat,
        },
        "provenance": detector.provenance,
        **detector.header_extras(),
    }
    tensors = {_STATE + name: tensor for name, tensor in detector.saved_state().items()}
    tensors |= {_CALIBRATION + name: torch.as_tensor(array) for name, array in scores.items()}
    if peaks is not None:
        tensors[_CALIBRATION + _PEAKS] = torch.as_tensor(peaks)
    return storage.write(path, header, tensors)


def load(path: str | Path, *, device: str | torch.device = "cpu", **runtime: Any) -> "Detector":
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
    kind = detector_class(header["method"])
    detector = kind(kind.Config.from_options(**header["config"]), **runtime)
    detector.preprocess = Preprocess.model_validate(header["preprocess"])
    channels, height, width = header["image_shape"]
    build(detector, (channels, height, width))
    try:
        detector.restore(header, _under(_STATE, stored.tensors))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {kind.info.name} as this version builds it: {error}") from None
    arrays = {name: tensor.numpy() for name, tensor in _under(_CALIBRATION, stored.tensors).items()}
    detector.calibration = Conformal.from_state(arrays, header["calibration"])
    detector.threshold = header["calibration"]["threshold"]
    detector.false_alarm_rate = header["calibration"]["false_alarm_rate"]
    heat = header["calibration"].get("heat")
    detector.heat_range = None if heat is None else HeatRange.from_state(arrays[_PEAKS], heat)
    detector.provenance = header["provenance"]
    detector.is_fitted = True
    return detector.to(device).eval()


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
