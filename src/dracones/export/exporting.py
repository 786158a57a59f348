"""`export`: trace, convert, prove, write."""

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dracones.detectors import Detector
from dracones.export.deployed import Deployed, Input, Treatment, host_names, input_of, refusal
from dracones.export.graph import OPSET, onnx_of, program_of
from dracones.export.openvino import openvino_of
from dracones.export.proof import expected, host_of, proof_images, stride_of
from dracones.files.atomic import write_bytes
from dracones.images.codecs import codec_versions
from dracones.runtime import FORMAT, seal
from dracones.runtime.agreement import TOLERANCE, disagreement
from dracones.runtime.container import CHECKS, DIGEST, FACTS, PLACEHOLDER, TREATMENT, Checks, UnfitFileError
from dracones.runtime.detector import from_bytes

_BATCHES = (1, 7)
_LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "numpy", "pillow", "timm")
_MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the file.
        difference: largest relative difference of a score or map that the proof met.
        seconds: that the export took.
        calibrated: whether the file says p-values and verdicts, or scores alone.
    """

    path: Path
    difference: float
    seconds: float
    calibrated: bool


def export(detector: Detector, path: str | Path, *, image_size: tuple[int, int] | None = None) -> Exported:
    """Write a fitted detector as one file that scores the same; larger score = more anomalous.

    The file takes uint8 images ``[B, C, H, W]`` and gives ``score``, and where they are known ``p_value``,
    ``is_anomaly`` and ``map``. Treatment, calibration and threshold are in the graph. Before anything is written the
    file is run by onnxruntime in batches of several sizes, and held against the detector.

    Args:
        detector: fitted; one that is not calibrated gives scores alone.
        path: ends in ``.onnx``, in ``.xml`` for OpenVINO (its weights are written beside it, in a ``.bin``), or in
            ``.pt2`` for torch's own format.
        image_size: height and width of all images that will come; without it any is taken. OpenVINO computes nothing
            in float64, in which a resize is made: for an ``.xml`` of a model that resizes, give it.

    Raises:
        ValueError: not fitted, a method that no graph holds (by name), an unknown ending.
        UnfitFileError: the file does not score the same; nothing is written.
        ImportError: the extra ``export`` is not installed.
    """
    path = Path(path)
    detector.fitted()
    if path.suffix not in _FORMS:
        raise ValueError(
            f"{path.name}: an export ends in .onnx, in .xml for OpenVINO, or in .pt2 for torch.export's format"
        )
    reason = refusal(detector)
    if reason is None and path.suffix == ".xml" and input_of(detector, image_size).size is None:
        reason = (
            "OpenVINO computes nothing in float64, in which a resize from any size is made; say the one height and "
            "width of all images that will come: image_size=(H, W), --image-size H W"
        )
    if reason is not None:
        raise ValueError(f"{detector.info.name} cannot be exported to {path.suffix}: {reason}")
    started = time.monotonic()
    device, on_cpu = detector.device, torch.device("cpu")
    detector.to(on_cpu)
    try:
        detector.method.eval()
        found = _Export(detector, image_size)
        data, weights, difference = _FORMS[path.suffix](found)
    finally:
        detector.to(device)
    if weights is not None:  # first: beside others, the old file is refused by its digest
        write_bytes(path.with_suffix(".bin"), weights)
    write_bytes(path, data)
    return Exported(path, difference, time.monotonic() - started, len(detector.calibration) > 0)


class _Export:
    """The steps of one export."""

    def __init__(self, detector: Detector, image_size: tuple[int, int] | None) -> None:
        self.detector = detector
        record = detector.fitted()
        self.takes: Input = input_of(detector, image_size)
        self.near = (record.image_shape[1], record.image_shape[2])
        self.deployed = Deployed(detector.pipeline, with_map=detector.gives_maps).eval()
        self.images = proof_images(self.takes, self.near, 3)
        tensor = torch.from_numpy(self.images)
        host = host_of(detector, tensor)
        self.arguments = (tensor,) if host is None else (tensor, host)
        self.program = program_of(self.deployed, self.arguments, self.takes)

    def pt2(self) -> tuple[bytes, None, float]:
        """torch.export's file, nothing beside it, and how far it is from the detector."""
        import io

        stream = io.BytesIO()
        facts = json.dumps(self.facts(), default=str)
        torch.export.save(self.program, stream, extra_files={"dracones.json": facts})
        data = stream.getvalue()
        graph = torch.export.load(io.BytesIO(data)).module()

        def answer(images: Any) -> dict[str, Any]:
            tensor = torch.from_numpy(images)
            host = host_of(self.detector, tensor)
            with torch.no_grad():
                answers = graph(tensor) if host is None else graph(tensor, host)
            return {name: each.numpy() for name, each in zip(self.deployed.names, answers, strict=True)}

        return data, None, self._proven(answer)

    def onnx(self) -> tuple[bytes, None, float]:
        """The sealed ONNX file, nothing beside it, and how far it is from the detector."""
        import onnx

        model = self._graph()
        onnx.helper.set_model_props(model, self._metadata())
        data = seal(self._bytes(model))
        return data, None, self._proven(from_bytes(data, Path("the exported file")).answer)

    def openvino(self) -> tuple[bytes, bytes, float]:
        """The sealed ``.xml``, its ``.bin``, and how far they are from the detector."""
        data, weights = openvino_of(self._bytes(self._graph()), self.deployed.names, self._metadata())
        data = seal(data, weights)
        return data, weights, self._proven(from_bytes(data, Path("the exported file"), weights).answer)

    def _graph(self) -> Any:
        return onnx_of(self.program, ["image", "host"][: len(self.arguments)], self.deployed.names)

    def _bytes(self, model: Any) -> bytes:
        if model.ByteSize() > _MOST_BYTES:
            raise ValueError(f"the file would have {model.ByteSize():,} bytes, and ONNX ends at {_MOST_BYTES:,}")
        data: bytes = model.SerializeToString()
        return data

    def _metadata(self) -> dict[str, str]:
        """Description, self-check, the place of the digest, and the treatment where host inputs need it."""
        stride = stride_of(self.images)
        outputs = expected(self.detector, self.deployed, self.images)
        if "map" in outputs:
            outputs["map"] = outputs["map"][:, ::stride, ::stride]
        metadata = {
            FACTS: json.dumps(self.facts(), default=str),
            CHECKS: Checks(self.images, outputs, stride).to_text(),
            DIGEST: PLACEHOLDER,
        }
        if len(self.arguments) > 1 and not self.detector.pipeline.preprocess.changes_nothing:
            metadata[TREATMENT] = base64.b64encode(self._treatment()).decode()
        return metadata

    def _treatment(self) -> bytes:
        program = program_of(Treatment(self.detector.pipeline.preprocess), self.arguments[:1], self.takes)
        data: bytes = onnx_of(program, ["image"], ["treated"]).SerializeToString()
        return data

    def _proven(self, answer: Any) -> float:
        """The largest difference over batches of several sizes; raises `UnfitFileError` where one is too large."""
        worst = 0.0
        calibration = self.detector.calibration.scores.astype(np.float32)
        for seed, count in enumerate(_BATCHES, start=1):
            images = proof_images(self.takes, self.near, count, seed)
            want = expected(self.detector, self.deployed, images)
            off, words = disagreement(answer(images), want, calibration)
            if words is not None:
                raise UnfitFileError(
                    f"the export of {self.detector.info.name} does not score as the detector does, and is not "
                    f"written: in a batch of {count}, {words}"
                )
            worst = max(worst, off)
        return worst

    def facts(self) -> dict[str, Any]:
        """What the file says of itself."""
        detector, record = self.detector, self.detector.fitted()
        info, heat = detector.info, None
        if record.heat_range is not None:
            peaks, numbers = record.heat_range.state()
            heat = {"peaks": peaks.tolist(), **numbers}
        return {
            "format": FORMAT,
            "method": {"name": info.name, "citation": info.citation, "gives": list(info.gives)},
            "config": detector.config.model_dump(mode="json"),
            "preprocess": record.preprocess.model_dump(mode="json"),
            "input": self.takes._asdict(),
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


_FORMS: dict[str, Callable[[_Export], tuple[bytes, bytes | None, float]]] = {
    ".onnx": _Export.onnx,
    ".pt2": _Export.pt2,
    ".xml": _Export.openvino,
}
"""By a file's ending: its bytes, those of a file beside it, and how far they are from the detector."""


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
