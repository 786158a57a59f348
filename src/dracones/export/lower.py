"""A proven float32 graph in a lower precision, written together with what that changes."""

from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from dracones.detectors import Detector
from dracones.detectors.familiar import digests, refuse_anomalous, refuse_learnt
from dracones.export.change import change_of, refuse_few
from dracones.export.half import half_weights
from dracones.export.quantised import quantised
from dracones.images import ImageCollection, open_images
from dracones.runtime import Change, ExportedDetector, Precision
from dracones.runtime.agreement import TOLERANCE, disagreement, map_difference

_MARGIN = 2.0
_USELESS = 0.25  # of the spread of the scores: a Glow in 8 bits, at .32, has three alarms for two before


@dataclass(frozen=True)
class Lower:
    """A lower precision and the images that judge it.

    Attributes:
        detector: that is exported.
        precision: ``fp16`` or ``int8``.
        ranges: images whose activations set the ranges of ``int8``; none for ``fp16``.
        held_out: images that the change is measured on.
    """

    detector: Detector
    precision: Precision
    ranges: ImageCollection | None
    held_out: ImageCollection

    @classmethod
    def of(cls, detector: Detector, suffix: str, precision: Precision, data: Any) -> Self | None:
        """What was asked; ``None`` for float32.

        Raises:
            ValueError: the format has no such precision, or the images are missing, too few, learnt from or anomalous.
        """
        if precision not in get_args(Precision):
            raise ValueError(f"precision is one of {', '.join(get_args(Precision))}; got {precision!r}")
        if precision == "float32":
            if data is not None:
                raise ValueError("in float32 nothing changes that could be measured; leave out measure (--measure)")
            return None
        reason = _LACKING.get((suffix, precision))
        if reason is not None:
            raise ValueError(f"{detector.info.name} cannot be exported to {suffix} in {precision}: {reason}")
        if data is None:
            raise ValueError(
                f"{precision} changes scores, and the file is written with the change that was measured alone: give "
                "normal images that the fit did not see as measure (--measure DATA)"
            )
        images = _unseen(detector, data)
        places = np.arange(len(images))
        if precision == "fp16":
            lower = cls(detector, precision, None, images)
        else:
            lower = cls(detector, precision, images.subset(places[::2]), images.subset(places[1::2]))
        refuse_few(len(lower.held_out), images.name_of_source)
        return lower

    def model(self, model: Any, line: ExportedDetector) -> Any:
        """The ONNX model in the lower precision; `line` is its proven file in float32."""
        if self.ranges is None:
            return half_weights(model)
        learnt = {f"pipeline.method.{name}" for name, _ in self.detector.method.named_parameters()}
        feeds = (dict(zip(("image", "host"), each, strict=False)) for each in line.inputs(self.ranges))
        return quantised(model, learnt, feeds)

    def measured(
        self, line: ExportedDetector, draft: ExportedDetector, other: ExportedDetector, checks: NDArray[np.uint8]
    ) -> tuple[Change, dict[str, Any]]:
        """What the file changes, and what it has to say of itself.

        Args:
            line: in float32.
            draft: in the lower precision.
            other: the same, run without what its runtime makes of it for this processor.
            checks: images that the file will repeat its answers for.

        Raises:
            ValueError: nothing is left of the scores, or too few images could be read.
        """
        change = change_of(line, draft, self.held_out)
        if change.score_noise > _USELESS:
            raise ValueError(
                f"{self.detector.info.name} cannot be exported in {self.precision}: its scores change by "
                f"{change.score_noise:.2f} of their spread among the {change.images} images measured, and from "
                f"{_USELESS} on verdicts are no longer the model's"
            )
        facts: dict[str, Any] = {"precision": {"name": self.precision, "change": change.to_json()}}
        if self.precision == "int8":  # a sum rounded elsewhere moves an activation by a whole step
            runs = [checks, *(arrays[0] for arrays in draft.inputs(self.held_out))]
            apart = np.array([_apart(draft, other, images) for images in runs]).max(axis=0)
            score, heat = np.maximum(TOLERANCE, _MARGIN * apart).tolist()
            facts |= {"tolerance": score, "map_tolerance": heat}
        return change, facts


_LACKING: dict[tuple[str, str], str] = {
    (".pt2", "fp16"): "torch.export's format is written in float32 alone; .onnx and .xml have it",
    (".pt2", "int8"): "torch.export's format is written in float32 alone; .onnx has it",
    (".xml", "int8"): "OpenVINO's 8-bit files are made by a tool of its own, which is not used here; .onnx has int8, "
    ".xml fp16",
}


def _apart(one: ExportedDetector, other: ExportedDetector, images: NDArray[np.uint8]) -> tuple[float, float]:
    """The largest relative differences of two runs: of scores and of maps."""
    wanted, found = one.answer(images), other.answer(images)
    calibration = one.calibration.scores.astype(np.float32)
    score, _ = disagreement({"score": found["score"]}, {"score": wanted["score"]}, calibration, np.inf)
    return score, map_difference(found["map"], wanted["map"]) if "map" in wanted else 0.0


def _unseen(detector: Detector, data: Any) -> ImageCollection:
    """The images of `data` that the fit did not learn from."""
    images = open_images(data)
    purpose = "measure what a lower precision changes"
    refuse_anomalous(images, purpose)
    known = refuse_learnt(detector.fitted().learnt, digests(images), images.name_of_source, purpose)
    return images.subset(np.flatnonzero(~known))
