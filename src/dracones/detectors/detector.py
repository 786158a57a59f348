"""The estimator that users meet, the same for every method: fit, calibrate, predict, save."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from dracones.calibration import Conformal, Groups
from dracones.calibration.groups import check_counts
from dracones.calibration.prediction import Prediction, Verdict
from dracones.detectors import files, fitting, scoring, streaming
from dracones.detectors.familiar import chosen_for_calibration, refuse_anomalous
from dracones.detectors.grouping import counts_of, grouping_of, groups_for_calibration, rule_of
from dracones.detectors.guarding import Guarding
from dracones.detectors.interests import interest_of
from dracones.detectors.likelihoods import Likelihoods
from dracones.detectors.record import Record
from dracones.images import ImageCollection, Preprocess, Skipped, UnreadableImage, open_images, within
from dracones.images.keys import How
from dracones.methods import Scores
from dracones.runtime.precision import Precision
from dracones.training import Progress


class Detector(Likelihoods, Guarding):
    """A method, learnt from normal images and calibrated; larger score = more anomalous.

    `dracones.create` makes one by the method's name, `dracones.load` reads one from a file.

    Args:
        method: what scores images; `fit` builds and trains it.

    Attributes:
        pipeline: treatment, method and verdict as one module: what is exported and served.
        record: what the fit and the calibration found; ``None`` before `fit`.
        config: the options.
        skipped: images that `fit` could not read.
    """

    def fit(
        self,
        data: Any,
        *,
        labels: Any = None,
        roi: Any = None,
        groups: How | None = None,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
        checkpoint: str | Path | None = None,
        strict: bool = False,
    ) -> Self:
        """Learn from normal images.

        A share of them stops the training and fits what is fitted after it (``validation_share``; where a method learns
        from these too, then last), another is kept aside to calibrate (``calibration_share``) and never learnt from.

        Args:
            data: normal images: a folder, file, array, tensor, Dataset or DataLoader (see `open_images`).
            labels: one class per image, for the methods that need them and data that does not carry them.
            roi: region of interest, outside which nothing counts, here and in every later score: an image file or array
                of the images' own size for all of them, which is saved with the detector; or a folder with one for
                each, which is then needed wherever images are given (see `dracones.images.within`).
            groups: what the images kept aside are calibrated by, each group for itself; see `calibrate`.
            device: where to learn; the detector stays there. A GPU if there is one, by default.
            progress: is told about everything that takes long.
            checkpoint: file that a killed fit goes on from (`forget_checkpoints` when the result is saved).
            strict: stop at the first unreadable image instead of leaving it out.

        Returns:
            The detector itself, calibrated at ``false_alarm_rate`` where the part kept aside is large enough.

        Raises:
            ValueError: too few images for the shares, images of several sizes with no ``size`` named, or images that
                their own set labels anomalous.
        """
        self.record = None
        opened = open_images(data, strict=strict, labels=labels)
        refuse_anomalous(opened, "be learnt from")
        opened = opened if roi is None else within(opened, roi)
        preprocess = fitting.choose_preprocess(self.method.info, self.config, opened)
        images = opened.with_preprocess(preprocess)
        named = None if groups is None else dict(zip(images.names, groups_for_calibration(images, groups), strict=True))
        shape = fitting.image_shape(self.method.info, self.config, images)
        parts, provenance = fitting.learn(self.method, images, shape, _choose_device(device), progress, checkpoint)
        self.config = self.method.config
        if provenance is not None:
            self.know(Record(preprocess, shape, interest_of(opened), provenance=provenance))
            self._calibrate_on(parts.calibration, progress, named, None if groups is None else rule_of(groups))
        found = fitting.agreed(self.method, self.record)
        if found is not None:
            self.know(found)
        self.skipped = tuple(images.skipped)
        return self

    def calibrate(
        self,
        data: Any = None,
        *,
        false_alarm_rate: float | None = None,
        confidence: float | None = None,
        pixel_rate: float | None = None,
        groups: How | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Set the threshold from normal images alone, with a promised false-alarm rate (split-conformal).

        Where the method gives heat maps, `heat_range` then says how hot those of normal images are, and has a threshold
        of its own for pixels: at most ``pixel_rate`` of normal images have any hotter one.

        Images that the fit learnt from are known by their content: a set that is mostly of them is refused, some are
        left out with a warning, and copies count once. Anomalies among the images raise the threshold: with a share
        above ``false_alarm_rate`` of them the threshold lies among the anomalies' own scores.

        Args:
            data: normal images the detector was not fitted on; those that `fit` kept aside if not given.
            false_alarm_rate: share of normal images that may be called anomalous, in expectation over draws of the
                calibration images; the configuration's if not given.
            confidence: if given, the rates hold with this probability for the calibration images at hand.
            pixel_rate: share of normal images that may have any pixel above the threshold of pixels; the false-alarm
                rate if not given, and then nothing is promised of pixels where the images are too few for it.
            groups: what each image's group is (a product, a camera, a class): the rate is then promised for every
                group, each by a threshold of its own from its own images. ``"folder"``, a regular expression of names,
                a mapping from names, or a list, one an image (see `keys_of`). Not to be confused with ``group_by`` of
                a fit, which keeps together what belongs together. Pixels have one threshold for all groups.
            progress: is told how far the scoring is.

        Raises:
            ValueError: not fitted, no calibration images, images that were learnt from, scores that are not finite, or
                too few distinct images for the rate, in all or in a group (the needed count is named, before anything
                is scored).
        """
        record = self.fitted()
        rate = self.config.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
        if pixel_rate is not None and not self.gives_maps:
            raise ValueError(f"{self.info.name} gives no heat maps here, so pixel_rate promises nothing; leave it out")
        if data is None and groups is not None:
            raise ValueError(
                "groups: the images that `fit` kept aside are grouped by fit(groups=...); give others here"
            )
        if data is not None:
            opened = self.open(data)
            refuse_anomalous(opened, "set a threshold")
            keys = None if groups is None else groups_for_calibration(opened, groups)
            rarest = rate if pixel_rate is None else min(rate, pixel_rate)
            chosen, found = chosen_for_calibration(record.learnt, opened, rarest, confidence, progress)
            if keys is not None:
                keys = [keys[i] for i in chosen]
                check_counts(counts_of(keys), rate, confidence)
            how = None if groups is None else rule_of(groups)
            record = self._seen(self.adopt(opened.subset(chosen)), progress, keys, how).met_in_calibration(found)
        if len(record.calibration) == 0:
            raise ValueError(
                "no calibration images: fit kept none aside (calibration_share=0); pass normal images to calibrate()"
            )
        self.know(record.promising(rate, confidence, pixel_rate))
        return self

    def predict(
        self,
        data: Any,
        *,
        groups: How | None = None,
        batch_size: int = 32,
        maps: bool = True,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Prediction:
        """Score images and, once calibrated, say which do not belong.

        Args:
            data: a folder, file, array, tensor, Dataset, DataLoader or `ImageCollection`.
            groups: each image's group, where the calibration has groups (see `calibrate`); by default as it was told
                there.
            batch_size: images scored together; changes speed and memory, and scores by rounding alone.
            maps: also return heat maps, where the method has them.
            strict: raise at the first unreadable image instead of reporting it in ``errors``.
            progress: is told how far the scoring is.

        Raises:
            ValueError: not fitted, images that the detector's treatment cannot take, or images of groups that were not
                calibrated, by name.
        """
        images = self.adopt(open_images(data, strict=strict))
        verdicts = list(self.iterate(images, groups=groups, batch_size=batch_size, maps=maps, progress=progress))
        return Prediction.gather(verdicts, tuple(images.skipped), self.threshold, self.false_alarm_rate)

    def iterate(
        self,
        data: Any,
        *,
        groups: How | None = None,
        batch_size: int = 32,
        maps: bool = True,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Iterator[Verdict]:
        """Verdicts one by one, in order, in memory bounded by the batch; what `predict` gathers.

        Raises:
            ValueError: of images there are, none can be read.
        """
        images = self.adopt(data if isinstance(data, ImageCollection) else open_images(data, strict=strict))
        return self._verdicts(
            images, self.stream(images, groups=groups, batch_size=batch_size, maps=maps, progress=progress)
        )

    def stream(
        self,
        images: ImageCollection,
        *,
        groups: How | None = None,
        batch_size: int = 32,
        maps: bool = False,
        progress: Progress | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[list[Verdict | Skipped]]:
        """An answer for every place of a collection from ``start`` on, block by block, and nothing kept.

        What cannot be read is answered by its reason and not recorded. A block's answers do not depend on where the
        stream began, so that a run taken up at a block gives the bits of an undisturbed one.

        Args:
            images: as `adopt` gives them.
            groups: as for `predict`.
            batch_size: places in a block.
            maps: also give heat maps, where the method has them.
            progress: is told how far the scoring is.
            start: the first place; a stream taken up somewhere gives the same bits at multiples of ``batch_size``.
            stop: the place behind the last; the collection's end if not given.
        """
        places = range(start, len(images) if stop is None else stop)
        grouping = grouping_of(self.groups, images, groups, places)
        return scoring.stream(
            self.scorer(), images, places, batch_size=batch_size, maps=maps, progress=progress, grouping=grouping
        )

    @staticmethod
    def _verdicts(images: ImageCollection, blocks: Iterator[list[Verdict | Skipped]]) -> Iterator[Verdict]:
        served = 0
        for block in blocks:
            for answer in block:
                if isinstance(answer, Skipped):
                    images.skip(UnreadableImage(answer.name, answer.reason))
                else:
                    served += 1
                    yield answer
        images.refuse_unread(served)

    def score(self, images: Tensor) -> Scores:
        """Scores of treated images ``[B, C, H, W]`` in [0, 1], as the method sees them: no verdict, no gradient.

        Raises:
            ValueError: not fitted, or a score that is not a number.
        """
        self.fitted()
        return streaming.score_batch(self.scorer(), images)

    def save(self, path: str | Path) -> Path:
        """Write everything that `dracones.load` needs to one safetensors file.

        Raises:
            ValueError: not fitted.
            OSError: the disk refused; a file that was there before is untouched.
        """
        self.record = files.write(path, self.method, self.config, self.fitted())
        return Path(path)

    def export(
        self,
        path: str | Path,
        *,
        image_size: tuple[int, int] | None = None,
        precision: Precision = "float32",
        measure: Any = None,
    ) -> Path:
        """Write one file that scores the same without torch; see `dracones.export.export`.

        Args:
            path: ends in ``.onnx``, ``.xml`` or ``.pt2``.
            image_size: height and width of all images that will come; any where none is given.
            precision: ``float32``, or ``fp16`` or ``int8``, whose scores are others; the promised false-alarm rate was
                set in float32.
            measure: normal images that the fit did not see, on which the change by a lower precision is measured; the
                file says it.

        Raises:
            ValueError: not fitted, a method that no graph holds, or a precision that cannot be had or measured.
        """
        from importlib import import_module

        # The room above: a detector offers its verb and does not depend on it.
        write = import_module("dracones.export").export
        written: Path = write(self, path, image_size=image_size, precision=precision, measure=measure).path
        return written

    def tiled(self, size: tuple[int, int], overlap: int = 0) -> "Detector":
        """The same fitted detector, looking at images in tiles; images may then have any size.

        Weights are shared with this detector. Scores of whole images are others, so it is to be calibrated anew.

        Args:
            size: height, width of a tile; what the detector was fitted on, where it takes one size alone.
            overlap: pixels by which tiles overlap at least.
        """
        record = self.fitted()
        view = Detector(self.method)
        view.config = self.config.model_copy(update={"tile": size, "tile_overlap": overlap})
        channels = record.image_shape[0]
        preprocess = Preprocess(channels=channels, interpolation=record.preprocess.interpolation)
        view.know(replace(record.uncalibrated(), preprocess=preprocess))
        return view

    def scorer(self) -> streaming.Scorer:
        """What scores collections: the pipeline, and how images are cut."""
        self.method.eval()
        return streaming.Scorer(self.pipeline, self.tiling)

    def to(self, device: str | torch.device) -> Self:
        """Move everything to a device; returns the detector itself."""
        self.pipeline.to(device)
        return self

    def look_at_normal(self, images: ImageCollection, progress: Progress | None = None) -> None:
        """Keep the scores of treated normal images that were not learnt from, and promise nothing yet."""
        self.know(self._seen(images, progress, None, None))

    def _calibrate_on(
        self,
        images: ImageCollection,
        progress: Progress | None,
        groups: Mapping[str, str] | None,
        how: str | None,
    ) -> None:
        if len(images) == 0:
            return
        keys = None if groups is None else groups_for_calibration(images, groups)
        self.know(self._seen(images, progress, keys, how))
        needed = Conformal.needed_count(self.config.false_alarm_rate)
        if min([len(images)] if keys is None else counts_of(keys).values()) >= needed:
            self.calibrate()

    def _seen(
        self, images: ImageCollection, progress: Progress | None, keys: list[str] | None, how: str | None
    ) -> Record:
        """The record with the scores of normal images, each in its group."""
        found = scoring.scores_of_normals(self.scorer(), images, groups=keys, progress=progress)
        groups = None if keys is None else Groups.of([keys[i] for i in found.places], found.scores, how)
        return self.fitted().seen(Conformal().fit(found.scores), found.heat_range, groups)

    def __repr__(self) -> str:
        state = "not fitted" if self.record is None else f"fitted on {self.record.image_shape}"
        return f"Detector({self.info.name}, {state})"


def _choose_device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
