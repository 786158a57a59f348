"""`export`: trace, convert, prove, write."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dracones.detectors import Detector
from dracones.export.deployed import Deployed, Input, Treatment, input_of, refusal
from dracones.export.facts import facts_of
from dracones.export.graph import onnx_of, plain, program_of
from dracones.export.lower import Lower
from dracones.export.openvino import openvino_of
from dracones.export.proof import expected, host_of, proof_images, stride_of
from dracones.files.atomic import write_bytes
from dracones.runtime import Change, Precision, seal
from dracones.runtime.agreement import disagreement
from dracones.runtime.container import CHECKS, DIGEST, FACTS, PLACEHOLDER, TREATMENT, Checks, UnfitFileError
from dracones.runtime.detector import from_bytes, unproven

_BATCHES = (1, 7)
_NAME = Path("the exported file")
_MOST_BYTES = 2**31 - 1

Answers = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the file.
        difference: largest relative difference of a score or map that the proof met; of a file of lower precision, of
            the float32 graph that it was made of.
        seconds: that the export took.
        calibrated: whether the file says p-values and verdicts, or scores alone.
        change: what a lower precision changed; ``None`` in float32.
    """

    path: Path
    difference: float
    seconds: float
    calibrated: bool
    change: Change | None = None


def export(
    detector: Detector,
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    precision: Precision = "float32",
    measure: Any = None,
) -> Exported:
    """Write a fitted detector as one file that scores the same; larger score = more anomalous.

    The file takes uint8 images ``[B, C, H, W]`` and gives ``score``, and where they are known ``p_value``,
    ``is_anomaly`` and ``map``. Treatment, calibration and threshold are in the graph. Before anything is written the
    file is run by onnxruntime in batches of several sizes, and held against the detector.

    A lower precision changes scores, and with them how often good images raise an alarm: the promised rate was set in
    float32. So such a file is written with the change that was measured on `measure`, and says it to whoever loads it.

    Args:
        detector: fitted; one that is not calibrated gives scores alone.
        path: ends in ``.onnx``, in ``.xml`` for OpenVINO (its weights are written beside it, in a ``.bin``), or in
            ``.pt2`` for torch's own format.
        image_size: height and width of all images that will come; without it any is taken. OpenVINO computes nothing
            in float64, in which a resize is made: for an ``.xml`` of a model that resizes, give it.
        precision: ``float32``; ``fp16``, weights kept as halves, computed in float32; ``int8``, the layers of weights
            in 8 bits (``.onnx`` alone).
        measure: normal images that the fit did not see, for a lower precision: what it changes is measured on them.
            For ``int8`` every second one sets the ranges, and the others are measured.

    Raises:
        ValueError: not fitted, a method that no graph holds (by name), an unknown ending, a precision that the format
            does not have or that leaves nothing of the scores, or none or too few images to measure it on.
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
    lower = Lower.of(detector, path.suffix, precision, measure)
    device, on_cpu = detector.device, torch.device("cpu")
    detector.to(on_cpu)
    try:
        detector.method.eval()
        written = _FORMS[path.suffix](_Export(detector, image_size, lower))
    finally:
        detector.to(device)
    if written.beside is not None:  # first: beside others, the old file is refused by its digest
        write_bytes(path.with_suffix(".bin"), written.beside)
    write_bytes(path, written.data)
    seconds, calibrated = time.monotonic() - started, len(detector.calibration) > 0
    return Exported(path, written.difference, seconds, calibrated, written.change)


class _Written(NamedTuple):
    """A file's bytes, those beside it, how far float32 is from the detector, and what a lower precision changed."""

    data: bytes
    beside: bytes | None
    difference: float
    change: Change | None = None


_Form = Callable[[Any, Mapping[str, str]], tuple[bytes, bytes | None]]
"""From an ONNX model and metadata to a file's sealed bytes, and those of a file beside it."""


class _Export:
    """The steps of one export."""

    def __init__(self, detector: Detector, image_size: tuple[int, int] | None, lower: Lower | None) -> None:
        self.detector, self.lower = detector, lower
        record = detector.fitted()
        self.takes: Input = input_of(detector, image_size)
        self.near = (record.image_shape[1], record.image_shape[2])
        self.deployed = Deployed(detector.pipeline, with_map=detector.gives_maps).eval()
        self.images = proof_images(self.takes, self.near, 3)
        tensor = torch.from_numpy(self.images)
        host = host_of(detector, tensor)
        self.arguments = (tensor,) if host is None else (tensor, host)
        self.program = program_of(self.deployed, self.arguments, self.takes)

    def pt2(self) -> _Written:
        """torch.export's file."""
        import io

        stream = io.BytesIO()
        facts = json.dumps(facts_of(self.detector, self.takes), default=str)
        torch.export.save(self.program, stream, extra_files={"dracones.json": facts})
        data = stream.getvalue()
        graph = torch.export.load(io.BytesIO(data)).module()

        def answer(images: Any) -> dict[str, Any]:
            tensor = torch.from_numpy(images)
            host = host_of(self.detector, tensor)
            with torch.no_grad():
                answers = graph(tensor) if host is None else graph(tensor, host)
            return {name: each.numpy() for name, each in zip(self.deployed.names, answers, strict=True)}

        return _Written(data, None, self._proven(answer))

    def onnx(self) -> _Written:
        """The sealed ONNX file."""

        def form(model: Any, metadata: Mapping[str, str]) -> tuple[bytes, None]:
            import onnx

            made = plain(model)
            onnx.helper.set_model_props(made, dict(metadata))
            return seal(_bytes(made)), None

        return self._written(form)

    def openvino(self) -> _Written:
        """The sealed ``.xml`` and its ``.bin``."""

        def form(model: Any, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
            data, weights = openvino_of(_bytes(plain(model)), self.deployed.names, metadata)
            return seal(data, weights), weights

        return self._written(form)

    def _written(self, form: _Form) -> _Written:
        """The file in float32, proven; or what a lower precision makes of the proven graph."""
        model = onnx_of(self.program, ["image", "host"][: len(self.arguments)], self.deployed.names)
        data, beside = form(model, self._metadata(expected(self.detector, self.deployed, self.images)))
        line = from_bytes(data, _NAME, beside)
        difference = self._proven(line.answer)
        if self.lower is None:
            return _Written(data, beside, difference)
        model = self.lower.model(model, line)
        data, beside = form(model, self._metadata(line.answer(self.images)))
        draft, other = (unproven(data, _NAME, beside, fused=fused) for fused in (True, False))
        change, facts = self.lower.measured(line, draft, other, self.images)
        data, beside = form(model, self._metadata(draft.answer(self.images), facts))
        from_bytes(data, _NAME, beside)  # its check is of its own answers, and has to pass
        return _Written(data, beside, difference, change)

    def _metadata(self, outputs: Answers, facts: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Description, self-check, the place of the digest, and the treatment where host inputs need it."""
        stride = stride_of(self.images)
        kept = {name: each[:, ::stride, ::stride] if name == "map" else each for name, each in outputs.items()}
        metadata = {
            FACTS: json.dumps(facts_of(self.detector, self.takes) | dict(facts or {}), default=str),
            CHECKS: Checks(self.images, kept, stride).to_text(),
            DIGEST: PLACEHOLDER,
        }
        if len(self.arguments) > 1 and not self.detector.pipeline.preprocess.changes_nothing:
            metadata[TREATMENT] = base64.b64encode(self._treatment()).decode()
        return metadata

    def _treatment(self) -> bytes:
        program = program_of(Treatment(self.detector.pipeline.preprocess), self.arguments[:1], self.takes)
        data: bytes = plain(onnx_of(program, ["image"], ["treated"])).SerializeToString()
        return data

    def _proven(self, answer: Callable[[NDArray[np.uint8]], Answers]) -> float:
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


def _bytes(model: Any) -> bytes:
    if model.ByteSize() > _MOST_BYTES:
        raise ValueError(f"the file would have {model.ByteSize():,} bytes, and ONNX ends at {_MOST_BYTES:,}")
    data: bytes = model.SerializeToString()
    return data


_FORMS: dict[str, Callable[[_Export], _Written]] = {
    ".onnx": _Export.onnx,
    ".pt2": _Export.pt2,
    ".xml": _Export.openvino,
}
"""By a file's ending: what writes it."""
