"""What a detector knows of itself, and how it meets images."""

from collections.abc import Mapping
from typing import Any

import torch

from dracones.calibration import Conformal, Groups
from dracones.calibration.heat_range import HeatRange
from dracones.detectors import fitting, scoring
from dracones.detectors.interests import restricted_as, within_as
from dracones.detectors.judge import Judge
from dracones.detectors.pipeline import Pipeline
from dracones.detectors.record import Record
from dracones.images import ImageCollection, Preprocess, Skipped, Tiling, open_images
from dracones.methods import Method, MethodConfig, MethodInfo


class Known:
    """A fitted method and what was found of it; how images are met. The base of `Detector`, which adds the verbs.

    Args:
        method: what scores images.

    Attributes:
        pipeline: treatment, method and verdict as one module.
        record: what a fit and a calibration found; ``None`` before.
        config: the options.
        skipped: images that the fit could not read.
    """

    def __init__(self, method: Method) -> None:
        self.pipeline = Pipeline(method)
        self.config: MethodConfig = method.config
        self.record: Record | None = None
        self.skipped: tuple[Skipped, ...] = ()

    def open(self, data: Any, *, strict: bool = False, roi: Any = None) -> ImageCollection:
        """The images of ``data`` within this detector's region of interest, not treated yet.

        Args:
            data: see `open_images`.
            strict: stop at the first unreadable image.
            roi: the region, where each image has its own.

        Raises:
            ValueError: a region where the detector knows none, or another than its own.
        """
        images = open_images(data, strict=strict)
        return restricted_as(
            self.fitted().interest, images if roi is None else within_as(self.fitted().interest, images, roi)
        )

    def adopt(self, images: ImageCollection) -> ImageCollection:
        """A collection with this detector's treatment, within its region of interest.

        Raises:
            ValueError: not fitted, or a collection that brings another treatment or region of its own.
        """
        record = self.fitted()
        return scoring.treated_by(record.preprocess, restricted_as(record.interest, images))

    @property
    def method(self) -> Method:
        """What scores."""
        return self.pipeline.method

    @property
    def info(self) -> MethodInfo:
        """The method's record."""
        return self.method.info

    @property
    def device(self) -> torch.device:
        """Where the method's tensors are."""
        return self.method.device

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` or `dracones.load` is behind it."""
        return self.record is not None

    @property
    def calibration(self) -> Conformal:
        """Scores of the calibration images; empty before."""
        return Conformal() if self.record is None else self.record.calibration

    @property
    def groups(self) -> Groups | None:
        """The calibration by groups, each with its threshold; ``None`` where one is for all."""
        return None if self.record is None else self.record.groups

    @property
    def threshold(self) -> float | None:
        """Score above which an image is anomalous; ``None`` also where each of `groups` has its own."""
        return None if self.record is None else self.record.threshold

    @property
    def false_alarm_rate(self) -> float | None:
        """The rate promised for the threshold, or in each group."""
        return None if self.record is None else self.record.false_alarm_rate

    @property
    def heat_range(self) -> HeatRange | None:
        """How hot the heat maps of normal images are, where there are maps."""
        return None if self.record is None else self.record.heat_range

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Versions, seed, data and training of the fit; the digest of the model, once a file holds it."""
        if self.record is None:
            return {}
        named = {} if self.record.digest is None else {"digest": self.record.digest}
        return {**self.record.provenance, **named}

    @property
    def preprocess(self) -> Preprocess | None:
        """How images are treated."""
        return None if self.record is None else self.record.preprocess

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """``(C, H, W)`` of what the method sees."""
        return None if self.record is None else self.record.image_shape

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut in tiles; ``None`` where they are scored whole."""
        return fitting.tiling_of(self.config)

    @property
    def gives_maps(self) -> bool:
        """Whether scores come with heat maps: by the method itself, or because images are scored in tiles."""
        return self.method.gives_maps or self.config.tile is not None

    def fitted(self) -> Record:
        """The record of a fitted detector.

        Raises:
            ValueError: not fitted.
        """
        if self.record is None:
            raise ValueError(
                f"this {self.info.name} is not fitted; call fit(normal_images) or dracones.load(file) first"
            )
        return self.record

    def know(self, record: Record) -> None:
        """Take over a record: what a fit, a calibration or a file found."""
        self.record = record
        judge = Judge(record.calibration, record.threshold, record.groups).to(self.device)
        self.pipeline.preprocess, self.pipeline.judge = record.preprocess, judge
