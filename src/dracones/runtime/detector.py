"""An exported file as a detector that scores: the same answers as the model it came from, without torch."""

import base64
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.calibration import Conformal, HeatRange, Prediction, Verdict
from dracones.images.codecs import codec_versions, compressed_bits
from dracones.images.limits import Skipped, UnreadableImage
from dracones.images.prefetch import in_order, runs
from dracones.runtime import container
from dracones.runtime.agreement import disagreement
from dracones.runtime.calibrated import Calibrated
from dracones.runtime.images import open_line_images
from dracones.runtime.openvino import OpenVinoSession
from dracones.runtime.precision import Change, Precision
from dracones.runtime.session import Session

_PREFIX = "complexity_"


class ExportedDetector:
    """A file that `Detector.export` wrote, proven by its own check; larger score = more anomalous.

    Attributes:
        facts: what the file says of itself: method, configuration, input, calibration, provenance, versions.
    """

    def __init__(self, session: Session | OpenVinoSession, facts: dict[str, Any], checks: container.Checks) -> None:
        self._session = session
        self.facts = facts
        self._checks = checks
        treatment = session.metadata.get(container.TREATMENT)
        running = type(session)
        self._treatment = None if treatment is None else running(base64.b64decode(treatment), "the treatment")
        self.info = SimpleNamespace(**{**facts["method"], "gives": tuple(facts["method"]["gives"])})

    @property
    def threshold(self) -> float | None:
        """Score above which an image is anomalous."""
        value: float | None = self.facts["calibration"]["threshold"]
        return value

    @property
    def false_alarm_rate(self) -> float | None:
        """The rate promised for the threshold."""
        value: float | None = self.facts["calibration"]["false_alarm_rate"]
        return value

    @property
    def calibration(self) -> Conformal:
        """Scores of the calibration images; empty before."""
        scores = self.facts["calibration"]["scores"]
        return Conformal().fit(scores) if scores else Conformal()

    @property
    def heat_range(self) -> HeatRange | None:
        """How hot the heat maps of normal images are, where there are maps."""
        calibration = self.facts["calibration"]
        heat = calibration["heat"]
        if heat is None:
            return None
        rate, confidence = calibration["false_alarm_rate"], calibration.get("confidence")
        return HeatRange.from_state(np.array(heat["peaks"]), heat, false_alarm_rate=rate, confidence=confidence)

    @property
    def precision(self) -> Precision:
        """What the file's weights are kept in."""
        name: Precision = self.facts.get("precision", {}).get("name", "float32")
        return name

    @property
    def change(self) -> Change | None:
        """What a lower precision changed, as it was measured at export; ``None`` in float32."""
        return Change.of(self.facts)

    @property
    def gives_maps(self) -> bool:
        """Whether scores come with heat maps."""
        return "map" in self._session.outputs

    def fitted(self) -> Calibrated:
        """What the calibration found, for those who test the promise."""
        return Calibrated.of(self.facts, self.calibration, self.heat_range)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, seed, data and training of the fit."""
        return dict(self.facts["provenance"])

    def adopt(self, images: Any) -> Any:
        """The images; their treatment is in the graph."""
        return open_line_images(images)

    def predict(
        self, data: Any, *, batch_size: int = 32, maps: bool = True, strict: bool = False, progress: Any = None
    ) -> Prediction:
        """Score images; see `dracones.Detector.predict`, whose answer this is."""
        images = open_line_images(data, strict=strict)
        verdicts = list(self.iterate(images, batch_size=batch_size, maps=maps, progress=progress))
        return Prediction.gather(verdicts, tuple(images.skipped), self.threshold, self.false_alarm_rate)

    def iterate(
        self, data: Any, *, batch_size: int = 32, maps: bool = True, strict: bool = False, progress: Any = None
    ) -> Iterator[Verdict]:
        """Verdicts one by one, in order, in memory bounded by the batch; neighbours of one size share a batch."""
        images = open_line_images(data, strict=strict)
        served = 0
        for block in self.stream(images, batch_size=batch_size, maps=maps, progress=progress):
            for answer in block:
                if isinstance(answer, Skipped):
                    images.skip(UnreadableImage(answer.name, answer.reason))
                else:
                    served += 1
                    yield answer
        images.refuse_unread(served)

    def stream(
        self,
        images: Any,
        *,
        batch_size: int = 32,
        maps: bool = False,
        progress: Any = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[list[Verdict | Skipped]]:
        """An answer for every place from ``start`` to ``stop``, block by block; see `dracones.Detector.stream`."""

        def read(places: range) -> tuple[range, list[NDArray[np.uint8] | UnreadableImage]]:
            return places, [self._read(images, index) for index in places]

        end = len(images) if stop is None else stop
        if progress is not None:
            progress.start(end, "scoring")
            progress.advance(start)
        try:
            # While the session computes, with its own threads, one thread reads what comes next.
            blocks = runs(end, batch_size, start)
            for places, found in in_order(read, blocks, workers=int(self._session.threads != 1), ahead=2):
                yield self._answers([images.name(index) for index in places], found, maps)
                if progress is not None:
                    progress.advance(len(places))
        finally:
            if progress is not None:
                progress.finish()

    def answer(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Outputs by name, for images ``[B, C, H, W]`` uint8 of one size."""
        found = self._session.run([images, *self._host(images)])
        if "p_value" in found:  # a share of the calibration's scores and one, in float64 whatever the runtime counts in
            whole = len(self.facts["calibration"]["scores"]) + 1
            found["p_value"] = np.round(found["p_value"].astype(np.float64) * whole) / whole
        return found

    def inputs(self, images: Any) -> Iterator[list[NDArray[Any]]]:
        """What the graph is given for each image that it takes, one at a time, in the graph's order."""
        for index in range(len(images)):
            found = self._read(images, index)
            if not isinstance(found, UnreadableImage):
                yield [found[None], *self._host(found[None])]

    def prove(self, name: str) -> None:
        """Repeat the check that the file brings along.

        Raises:
            UnfitFileError: this machine's answers are not those of the export.
        """
        found = self.answer(self._checks.images)
        if "map" in found:
            found["map"] = found["map"][:, :: self._checks.stride, :: self._checks.stride]
        calibration = np.array(self.facts["calibration"]["scores"], dtype=np.float32)
        told = self.facts
        _, words = disagreement(found, self._checks.outputs, calibration, told["tolerance"], told.get("map_tolerance"))
        if words is None:
            return
        raise container.UnfitFileError(f"{name} fails its own check: {words}{self._codec_note()}")

    def _codec_note(self) -> str:
        recorded, here = self.facts["codecs"], codec_versions()
        changed = {name: (version, here.get(name)) for name, version in recorded.items() if here.get(name) != version}
        if not self.facts["host"] or not changed:
            return ""
        listed = ", ".join(f"{name} {there} became {now}" for name, (there, now) in changed.items())
        return f"; it reads sizes of compressed images, and {listed}: install the Pillow of the export"

    def _host(self, images: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
        names = self.facts["host"]
        if not names:
            return []
        treated = images if self._treatment is None else next(iter(self._treatment.run([images]).values()))
        bits = [[compressed_bits(image, name.removeprefix(_PREFIX)) for name in names] for image in treated]
        return [np.array(bits, dtype=np.float64).reshape(len(images), len(names))]

    def _fitting(self, image: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """The image as the graph takes it, or why it does not."""
        if image.dtype != np.uint8:
            raise UnreadableImage(name, f"pixels of type {image.dtype}; exported files take 8-bit images")
        wanted = self.facts["input"]
        channels, *size = image.shape
        if channels == 1 and wanted["channels"] == 3 and wanted["gray_too"]:
            image = np.repeat(image, 3, axis=0)
        elif channels != wanted["channels"]:
            raise UnreadableImage(name, f"{channels} channels where {wanted['channels']} are expected")
        if wanted["size"] is not None and size != wanted["size"]:
            words = ["x".join(map(str, each)) for each in (size, wanted["size"])]
            raise UnreadableImage(
                name, f"{words[0]} pixels where {words[1]} are expected: the file takes images of one size"
            )
        return image

    def _read(self, images: Any, index: int) -> NDArray[np.uint8] | UnreadableImage:
        try:
            return self._fitting(np.asarray(images.read_native(index)), images.name(index))
        except UnreadableImage as error:
            if images.strict:
                raise
            return error

    def _answers(
        self, names: list[str], found: list[NDArray[np.uint8] | UnreadableImage], maps: bool
    ) -> list[Verdict | Skipped]:
        """One answer an image, in order; neighbours of one size are scored together."""
        answers: list[Verdict | Skipped] = []
        held: list[tuple[str, NDArray[np.uint8]]] = []
        for name, image in zip(names, found, strict=True):
            if held and getattr(image, "shape", None) != held[0][1].shape:
                answers += self._judged(held, maps)
                held = []
            if isinstance(image, UnreadableImage):
                answers.append(Skipped(image.name, image.reason))
            else:
                held.append((name, image))
        return answers + (self._judged(held, maps) if held else [])

    def _judged(self, held: list[tuple[str, NDArray[np.uint8]]], maps: bool) -> list[Verdict]:
        found = self.answer(np.stack([image for _, image in held]))
        bad = int(np.isnan(found["score"]).sum())
        if bad:
            raise ValueError(f"{self.info.name} gave {bad} NaN score(s) in a batch of {len(held)}")
        return [
            Verdict(
                name,
                float(found["score"][i]),
                float(found["p_value"][i]) if "p_value" in found else None,
                bool(found["is_anomaly"][i]) if "is_anomaly" in found else None,
                found["map"][i] if maps and "map" in found else None,
            )
            for i, (name, _) in enumerate(held)
        ]

    def __repr__(self) -> str:
        return f"ExportedDetector({self.info.name}, format {self.facts['format']}, {self.precision})"


def load(path: str | Path) -> ExportedDetector:
    """Read a file that `Detector.export` wrote, and let it prove itself on this machine.

    Args:
        path: an ``.onnx``, or an ``.xml`` with its ``.bin`` beside it.

    Raises:
        FileNotFoundError: no such file, or no ``.bin``.
        UnfitFileError: foreign, cut off, edited or newer, or its answers here are not those of the export.
        ImportError: onnxruntime, or for an ``.xml`` openvino, is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix.lower() != ".xml":
        return from_bytes(path.read_bytes(), path)
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise FileNotFoundError(f"{path} has its weights in {weights.name} beside it, and there is none; copy both")
    return from_bytes(path.read_bytes(), path, weights.read_bytes())


def from_bytes(data: bytes, path: Path, weights: bytes | None = None) -> ExportedDetector:
    """As `load`, from a file's bytes, and where it is OpenVINO's those of its weights."""
    detector = unproven(data, path, weights)
    detector.prove(str(path))
    return detector


def unproven(data: bytes, path: Path, weights: bytes | None = None, *, fused: bool = True) -> ExportedDetector:
    """As `from_bytes`, before the file has proven itself; `fused` as in `Session`."""
    running: Session | OpenVinoSession = (
        Session(data, str(path), fused=fused) if weights is None else OpenVinoSession(data, str(path), weights)
    )
    facts = container.facts_of(path, running.metadata)
    if not container.is_whole(data, weights or b""):
        raise container.UnfitFileError(f"{path} is not what was exported: its digest differs; copy or export it again")
    return ExportedDetector(running, facts, container.Checks.from_text(running.metadata[container.CHECKS]))
