"""The one contract of all methods: fit, calibrate, predict, save, load."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dracones.calibration import Conformal
from dracones.detectors import fitting, scoring
from dracones.detectors.fitting import FitContext, Trainee
from dracones.detectors.heat_range import HeatRange
from dracones.detectors.prediction import Prediction, Scores, Verdict
from dracones.detectors.reading import counting, reading_threads
from dracones.detectors.splits import Parts
from dracones.images import ImageCollection, Preprocess, Skipped, Tiling, open_images
from dracones.methods.config import DetectorConfig
from dracones.methods.info import MethodInfo
from dracones.training import Progress, TrainingConfig


class Detector(nn.Module, ABC):
    """A method that learns what belongs and scores what does not; larger score = more anomalous.

    A subclass gives:

    - ``info``: its `MethodInfo`;
    - ``Config``: its options, a subclass of `DetectorConfig`;
    - `build`: make its submodules for a shape (called by `fit` and, before the state is read, by `load`);
    - `score`: scores of a batch;
    - what learning it needs: `training_config` and `training_loss` for gradient descent, `fit_statistics` for
      what is gathered. `training_data` may swap images for something computed from them (frozen features).

    Everything that changes a score after loading must be a parameter or a buffer, or follow from ``Config``.
    Buffers may change their size while fitting (register them empty); parameters may not.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[DetectorConfig]] = DetectorConfig

    def __init__(self, config: DetectorConfig | None = None, **options: Any) -> None:
        super().__init__()
        self.config = config if config is not None else self.Config.from_options(**options)
        self.preprocess: Preprocess | None = None
        self.image_shape: tuple[int, int, int] | None = None
        self.calibration = Conformal()
        self.false_alarm_rate: float | None = None
        self.threshold: float | None = None
        self.heat_range: HeatRange | None = None
        self.provenance: dict[str, Any] = {}
        self.is_fitted = False
        self.skipped: tuple[Skipped, ...] = ()

    # What a method gives ----------------------------------------------------------------------------------------

    @abstractmethod
    def build(self, image_shape: tuple[int, int, int]) -> None:
        """Make the submodules for images ``[C, H, W]``; called once, under the configuration's seed."""

    @abstractmethod
    def score(self, images: Tensor) -> Scores:
        """Score preprocessed images ``[B, C, H, W]`` in [0, 1]; a score must not depend on the rest of the batch."""

    def training_config(self) -> TrainingConfig | None:
        """How to train; ``None`` for a method that only gathers statistics."""
        return getattr(self.config, "training", None)

    def training_data(self, images: ImageCollection, progress: Progress | None = None) -> Dataset[Any]:
        """What the training loop draws batches from; the preprocessed images unless a method says otherwise."""
        with counting(progress, len(images), "reading images") as count:
            return images.to_dataset(workers=reading_threads(), progress=count)

    def training_loss(self, batch: Any, *, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Scalar to minimise for a batch of `training_data`."""
        raise TypeError(f"{self.info.name} is not trained by gradient descent; its training_config should be None")

    def trainees(self, parts: Parts, progress: Progress | None = None) -> Iterator[Trainee]:
        """The modules to train, one after the other; the detector itself unless a method says otherwise."""
        config = self.training_config()
        if config is not None:
            validation = self.training_data(parts.validation, progress) if len(parts.validation) else None
            yield Trainee(0, self, config, self.training_data(parts.train, progress), validation)

    def fit_statistics(self, context: FitContext) -> None:
        """Gather what the score needs beside trained weights; called after training, in eval mode."""

    # Written once -----------------------------------------------------------------------------------------------

    def fit(
        self,
        data: Any,
        *,
        labels: Any = None,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
        checkpoint: str | Path | None = None,
        strict: bool = False,
    ) -> Self:
        """Learn from normal images.

        A share of them stops the training and fits what is fitted after it (``validation_share``), another is kept
        aside to calibrate (``calibration_share``); neither is trained on.

        Args:
            data: normal images: a folder, file, array, tensor, Dataset or DataLoader (see `open_images`).
            labels: one class per image, for the methods that need them and data that does not carry them.
            device: where to learn; the detector stays there. A GPU if there is one, by default.
            progress: is told about everything that takes long.
            checkpoint: file that a killed fit goes on from (`forget_checkpoints` when the result is saved).
            strict: stop at the first unreadable image instead of leaving it out.

        Returns:
            The detector itself, calibrated at ``false_alarm_rate`` where the part kept aside is large enough.

        Raises:
            ValueError: too few images for the shares, or images of several sizes with no ``size`` named.
        """
        self.preprocess, self.is_fitted = None, False
        self.forget_calibration()
        images = self.adopt(open_images(data, strict=strict, labels=labels))
        parts = fitting.learn(self, images, _choose_device(device), progress, checkpoint)
        self.is_fitted = True
        self._calibrate_on(parts.calibration, progress)
        self.skipped = tuple(images.skipped)
        return self

    def calibrate(
        self,
        data: Any = None,
        *,
        false_alarm_rate: float | None = None,
        confidence: float | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Set the threshold from normal images alone, with a promised false-alarm rate (split-conformal).

        Where the method gives heat maps, `heat_range` then says how hot those of normal images are.

        Args:
            data: normal images the detector was not fitted on; those that `fit` kept aside if not given.
            false_alarm_rate: share of normal images that may be called anomalous, in expectation over draws of the
                calibration images; the configuration's if not given.
            confidence: if given, the rate holds with this probability for the calibration images at hand.
            progress: is told how far the scoring is.

        Raises:
            ValueError: not fitted, no calibration images, or too few for the rate (the needed count is named).
        """
        self.require_fitted()
        calibration, heat_range = self.calibration, self.heat_range
        if data is not None:
            calibration, heat_range = self._range_of(self.adopt(open_images(data)), progress)
        if len(calibration) == 0:
            raise ValueError(
                "no calibration images: fit kept none aside (calibration_share=0); pass normal images to calibrate()"
            )
        rate = self.config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        self.threshold = calibration.threshold(rate, confidence=confidence)
        self.calibration, self.false_alarm_rate = calibration, rate
        self.heat_range = None if heat_range is None else heat_range.at(rate, confidence)
        return self

    def predict(
        self,
        data: Any,
        *,
        batch_size: int = 32,
        maps: bool = True,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Prediction:
        """Score images and, once calibrated, say which do not belong.

        Args:
            data: a folder, file, array, tensor, Dataset, DataLoader or `ImageCollection`.
            batch_size: images scored together; changes speed and memory, not scores.
            maps: also return heat maps, where the method has them.
            strict: raise at the first unreadable image instead of reporting it in ``errors``.
            progress: is told how far the scoring is.

        Raises:
            ValueError: not fitted, or images that the detector's preprocessing cannot take.
        """
        images = self.adopt(open_images(data, strict=strict))
        verdicts = list(self.iterate(images, batch_size=batch_size, maps=maps, progress=progress))
        return Prediction.gather(verdicts, tuple(images.skipped), self.threshold, self.false_alarm_rate)

    def iterate(
        self,
        data: Any,
        *,
        batch_size: int = 32,
        maps: bool = True,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[Verdict]:
        """Verdicts one by one, in order, in memory bounded by the batch; what `predict` gathers."""
        self.require_fitted()
        images = self.adopt(data if isinstance(data, ImageCollection) else open_images(data, strict=strict))
        return scoring.verdicts(self, images, batch_size=batch_size, maps=maps, progress=progress)

    def adopt(self, images: ImageCollection) -> ImageCollection:
        """Bring a collection to this detector's preprocessing; the first `fit` chooses that from its images."""
        if self.preprocess is None:
            self.preprocess = fitting.choose_preprocess(self, images)
        return images.with_preprocess(self.preprocess)

    def save(self, path: str | Path) -> Path:
        """Write everything that `load` needs to one safetensors file.

        Raises:
            ValueError: not fitted.
            OSError: the disk refused; a file that was there before is untouched.
        """
        from dracones.detectors import files

        return files.save(self, path)

    def saved_state(self) -> dict[str, Tensor]:
        """Tensors that go into the file; all of ``state_dict`` unless a method leaves out what it is handed again."""
        return dict(self.state_dict())

    def header_extras(self) -> dict[str, Any]:
        """What a method adds to the file's header, such as the fingerprint of a model that it wraps."""
        return {}

    def restore(self, header: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Take over what `saved_state` and `header_extras` gave; sizes of buffers follow the file."""
        scoring.load_state(self, state)

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut in tiles; ``None`` where they are scored whole."""
        if self.config.tile is None:
            return None
        return Tiling(size=self.config.tile, overlap=self.config.tile_overlap)

    def tiled(self, size: tuple[int, int], overlap: int = 0) -> Self:
        """The same fitted detector, looking at images in tiles; images may then have any size.

        Weights are shared with this detector. Scores of whole images are others, so it is to be calibrated anew.

        Args:
            size: height, width of a tile; what the detector was fitted on, where it takes one size alone.
            overlap: pixels by which tiles overlap at least.
        """
        preprocess, (channels, _, _) = self.require_fitted()
        view = copy(self)
        view.config = self.config.model_copy(update={"tile": size, "tile_overlap": overlap})
        view.preprocess = Preprocess(channels=channels, interpolation=preprocess.interpolation)
        view.forget_calibration()
        return view

    @property
    def gives_maps(self) -> bool:
        """Whether scores come with heat maps: by the method itself, or because images are scored in tiles."""
        return "map" in self.info.gives or self.config.tile is not None

    @property
    def device(self) -> torch.device:
        """Where the detector's tensors are."""
        for tensor in [*self.parameters(), *self.buffers()]:
            return tensor.device
        return torch.device("cpu")

    def _calibrate_on(self, images: ImageCollection, progress: Progress | None) -> None:
        if len(images) == 0:
            return
        self.calibration, self.heat_range = self._range_of(images, progress)
        if len(self.calibration) >= Conformal.needed_count(self.config.false_alarm_rate):
            self.calibrate()

    def _range_of(self, images: ImageCollection, progress: Progress | None) -> tuple[Conformal, HeatRange | None]:
        scores, heat_range = scoring.scores_of_normals(self, images, progress=progress)
        return Conformal().fit(scores), heat_range

    def forget_calibration(self) -> None:
        """Drop what was learnt from calibration images: their scores are of other settings."""
        self.calibration, self.threshold, self.false_alarm_rate = Conformal(), None, None
        self.heat_range = None

    def require_fitted(self) -> tuple[Preprocess, tuple[int, int, int]]:
        """Preprocessing and image shape of a fitted detector.

        Raises:
            ValueError: not fitted.
        """
        if not self.is_fitted or self.preprocess is None or self.image_shape is None:
            raise ValueError(
                f"this {self.info.name} is not fitted; call fit(normal_images) or dracones.load(file) first"
            )
        return self.preprocess, self.image_shape


def _choose_device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
