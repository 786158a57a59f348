"""The one contract of all methods: fit, calibrate, predict, save, load."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dracones.calibration import Conformal
from dracones.data import ImageCollection, Preprocess, Skipped, Tiling, open_images, tiles_of
from dracones.detectors import scoring, storage
from dracones.detectors.config import DetectorConfig
from dracones.detectors.info import MethodInfo
from dracones.detectors.prediction import Prediction, Scores, Verdict
from dracones.detectors.provenance import provenance
from dracones.detectors.reading import counting, reading_threads
from dracones.detectors.splits import Parts, split
from dracones.training import Loss, Progress, TrainingConfig, train


@dataclass(frozen=True)
class FitContext:
    """What `Detector.fit_statistics` may look at: normal images only, the calibration part not among them.

    Attributes:
        train: images the weights were trained on.
        held_out: normal images the weights never saw (the validation share); empty when that share is zero.
        generator: source of all randomness.
        progress: where to tell how far a long gathering is.
    """

    train: ImageCollection
    held_out: ImageCollection
    generator: torch.Generator
    progress: Progress | None


class Trainee(NamedTuple):
    """One run of the training loop: a module with a ``training_loss``, and what it learns from.

    ``number`` counts the runs of one fit; it tells their seeds and checkpoints apart. ``loss(module, batch,
    generator)`` stands in for the module's own.
    """

    number: int
    module: nn.Module
    config: TrainingConfig
    data: Dataset[Any]
    validation: Dataset[Any] | None
    loss: Loss | None = None


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
        self.provenance: dict[str, Any] = {}
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
            checkpoint: file that a killed fit goes on from; removed when the fit is done.
            strict: stop at the first unreadable image instead of leaving it out.

        Returns:
            The detector itself, calibrated at ``false_alarm_rate`` where the part kept aside is large enough.

        Raises:
            ValueError: too few images for the shares, or images of several sizes with no ``size`` named.
        """
        started = time.monotonic()
        images = self.adopt(open_images(data, strict=strict, labels=labels))
        self._build(self._shape_of(images))
        self.to(_choose_device(device))
        parts = self._learnt_from(
            split(images, self.config.validation_share, self.config.calibration_share, self.config.seed)
        )
        reports = self._train(parts, progress, checkpoint)
        self.eval()
        generator = torch.Generator().manual_seed(self.config.seed)
        with torch.no_grad():
            self.fit_statistics(FitContext(parts.train, parts.validation, generator, progress))
        with counting(progress, len(images), "data fingerprint") as count:
            fingerprint = images.fingerprint(progress=count)
        self.provenance = provenance(self.config.seed, fingerprint, parts, time.monotonic() - started, reports)
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

        Args:
            data: normal images the detector was not fitted on; those that `fit` kept aside if not given.
            false_alarm_rate: share of normal images that may be called anomalous, in expectation over draws of the
                calibration images; the configuration's if not given.
            confidence: if given, the rate holds with this probability for the calibration images at hand.
            progress: is told how far the scoring is.

        Raises:
            ValueError: not fitted, no calibration images, or too few for the rate (the needed count is named).
        """
        self._fitted()
        if data is not None:
            scored = list(self.iterate(data, maps=False, progress=progress))
            self.calibration = Conformal().fit([verdict.score for verdict in scored])
        if len(self.calibration) == 0:
            raise ValueError(
                "no calibration images: fit kept none aside (calibration_share=0); pass normal images to calibrate()"
            )
        rate = self.config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        self.threshold = self.calibration.threshold(rate, confidence=confidence)
        self.false_alarm_rate = rate
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
        self._fitted()
        images = self.adopt(data if isinstance(data, ImageCollection) else open_images(data, strict=strict))
        return scoring.verdicts(self, images, batch_size=batch_size, maps=maps, progress=progress)

    def adopt(self, images: ImageCollection) -> ImageCollection:
        """Bring a collection to this detector's preprocessing; the first `fit` chooses that from its images."""
        if self.preprocess is None:
            self.preprocess = self._choose_preprocess(images)
        return images.with_preprocess(self.preprocess)

    def save(self, path: str | Path) -> Path:
        """Write everything that `load` needs to one safetensors file.

        Raises:
            ValueError: not fitted.
            OSError: the disk refused; a file that was there before is untouched.
        """
        preprocess, image_shape = self._fitted()
        scores, calibration = self.calibration.state()
        header = {
            "method": self.info.name,
            "config": self.config.model_dump(mode="json"),
            "image_shape": list(image_shape),
            "preprocess": preprocess.model_dump(mode="json"),
            "calibration": {
                **calibration,
                "threshold": self.threshold,
                "false_alarm_rate": self.false_alarm_rate,
            },
            "provenance": self.provenance,
            **self.header_extras(),
        }
        tensors = {f"state.{name}": tensor for name, tensor in self.saved_state().items()}
        return storage.write(
            path, header, {**tensors, **{f"calibration.{k}": torch.as_tensor(v) for k, v in scores.items()}}
        )

    def saved_state(self) -> dict[str, Tensor]:
        """Tensors that go into the file; all of ``state_dict`` unless a method leaves out what it is handed again."""
        return dict(self.state_dict())

    def header_extras(self) -> dict[str, Any]:
        """What a method adds to the file's header, such as the fingerprint of a model that it wraps."""
        return {}

    def restore(self, header: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Take over what `saved_state` and `header_extras` gave; sizes of buffers follow the file."""
        scoring.load_state(self, state)

    @classmethod
    def from_file(cls, path: str | Path, *, device: str | torch.device = "cpu", **runtime: Any) -> "Detector":
        """Read a detector of this method; see `dracones.load`."""
        stored = storage.read(path)
        header = stored.header
        detector = cls(cls.Config.from_options(**header["config"]), **runtime)
        detector.preprocess = Preprocess.model_validate(header["preprocess"])
        channels, height, width = header["image_shape"]
        detector._build((channels, height, width))
        state = {name.removeprefix("state."): t for name, t in stored.tensors.items() if name.startswith("state.")}
        try:
            detector.restore(header, state)
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit {cls.info.name} as this version builds it: {error}") from None
        arrays = {
            name.removeprefix("calibration."): t.numpy()
            for name, t in stored.tensors.items()
            if name.startswith("calibration.")
        }
        detector.calibration = Conformal.from_state(arrays, header["calibration"])
        detector.threshold = header["calibration"]["threshold"]
        detector.false_alarm_rate = header["calibration"]["false_alarm_rate"]
        detector.provenance = header["provenance"]
        return detector.to(device).eval()

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
        preprocess, (channels, _, _) = self._fitted()
        view = copy(self)
        view.config = self.config.model_copy(update={"tile": size, "tile_overlap": overlap})
        view.preprocess = Preprocess(channels=channels, interpolation=preprocess.interpolation)
        view.calibration, view.threshold, view.false_alarm_rate = Conformal(), None, None
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

    # Steps of fit -----------------------------------------------------------------------------------------------

    def _choose_preprocess(self, images: ImageCollection) -> Preprocess:
        if self.config.tile is None:
            return Preprocess.infer(images, size=self.config.size, channels=self.config.channels)
        # Tiles make images of any size alike; only their depth has to be one.
        channels = self.config.channels or images.native_shape(0)[0]
        return Preprocess(size=self.config.size, channels=channels)

    def _shape_of(self, images: ImageCollection) -> tuple[int, int, int]:
        preprocess = images.inferred_preprocess()
        if self.config.tile is not None:
            return (preprocess.channels or images.native_shape(0)[0], *self.config.tile)
        shape = preprocess.image_shape
        if shape is None:
            raise ValueError(
                f"{self.info.name} needs one shape for all images of {images.name_of_source}; name size and channels, "
                "such as size=[256, 256]"
            )
        return shape

    def _learnt_from(self, parts: Parts) -> Parts:
        """The parts as `build`'s shape sees them: cut in tiles, but for the calibration images, which stay whole."""
        if self.tiling is None:
            return parts
        return Parts(tiles_of(parts.train, self.tiling), tiles_of(parts.validation, self.tiling), parts.calibration)

    def _build(self, image_shape: tuple[int, int, int]) -> None:
        self.image_shape = image_shape
        # Modules draw their first weights from torch's global generator: seed a fork of it, leave the global alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.build(image_shape)

    def _train(self, parts: Parts, progress: Progress | None, checkpoint: str | Path | None) -> list[Any]:
        reports = []
        for trainee in self.trainees(parts, progress):
            device = str(self.device)
            config = trainee.config.model_copy(update={"seed": self.config.seed + trainee.number, "device": device})
            reports.append(
                train(
                    trainee.module,
                    trainee.data,
                    config,
                    validation=trainee.validation,
                    checkpoint=Path(f"{checkpoint}.{trainee.number}" if trainee.number else checkpoint)
                    if checkpoint
                    else None,
                    progress=progress,
                    loss=trainee.loss,
                )
            )
        return reports

    def _calibrate_on(self, images: ImageCollection, progress: Progress | None) -> None:
        if len(images) == 0:
            return
        scored = [verdict.score for verdict in self.iterate(images, maps=False, progress=progress)]
        self.calibration = Conformal().fit(scored)
        if len(self.calibration) >= Conformal.needed_count(self.config.false_alarm_rate):
            self.calibrate()

    def _fitted(self) -> tuple[Preprocess, tuple[int, int, int]]:
        if self.preprocess is None or self.image_shape is None:
            raise ValueError(
                f"this {self.info.name} is not fitted; call fit(normal_images) or dracones.load(file) first"
            )
        return self.preprocess, self.image_shape


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
    from dracones.detectors.registry import detector_class

    header = storage.read_header(path)
    return detector_class(header["method"]).from_file(path, device=device, **runtime)


def _choose_device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
