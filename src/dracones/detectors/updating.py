"""A fitted detector takes in further good images: memories and Gaussians learn on, the calibration is made anew."""

import copy
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch

import dracones
from dracones.calibration import Conformal
from dracones.calibration.met import Met
from dracones.detectors.detector import Detector
from dracones.detectors.familiar import digests, first_of_each, refuse_anomalous, refuse_learnt
from dracones.detectors.fitting import groups_in, in_tiles, native_shapes
from dracones.detectors.record import Record
from dracones.detectors.splitting import cut
from dracones.images import ImageCollection
from dracones.methods import FitContext
from dracones.training import Progress

_FOREIGN = 0.5
"""Share of new images called anomalous from which on they are not of the kind that was learnt."""


class Updated(NamedTuple):
    """A detector that has learnt on, and what was done, in words."""

    detector: Detector
    said: tuple[str, ...]


def update(
    detector: Detector, data: Any, *, calibrate: Any = None, anyway: bool = False, progress: Progress | None = None
) -> Updated:
    """A new detector that has also learnt from ``data``; the given one stays as it is.

    The new images are cut as those of a fit are: what is learnt from, what is held out, what calibrates. The former
    calibration scores are of the former detector, and dropped; the rate that was promised is promised anew where the
    new calibration images are enough for it, and otherwise nothing is.

    Args:
        detector: fitted, of a method that can learn on (memories, Gaussians, and an ensemble that has some).
        data: further good images.
        calibrate: good images to calibrate with, in place of a share of the new ones.
        anyway: take images in that look foreign: most of them are called anomalous, as a new kind of good part may be.
        progress: is told about everything that takes long.

    Raises:
        TypeError: a method that is trained as a whole.
        ValueError: images of another size or depth than those of the fit, of which most look anomalous, or of which
            most were learnt from already; too few images.
    """
    started = time.monotonic()
    record = detector.fitted()
    new = copy.deepcopy(detector)
    method, config = new.method, new.config
    if not method.learns_on:
        raise TypeError(
            f"{detector.info.name} cannot learn on: it is trained as a whole, and would forget what it no longer sees; "
            "fit it on all images together, or set its threshold anew (calibrate)"
        )
    if record.groups is not None and (calibrate is None or record.groups.how is None):
        raise ValueError(
            "the rate is promised for each group of images: give images to calibrate with (calibrate=...), of groups "
            "that their names tell"
        )
    images = detector.adopt(detector.open(data))
    refuse_anomalous(images, "be learnt from")
    _refuse_other_sizes(record, images)
    found = digests(images, progress)
    known = refuse_learnt(record.learnt, found, images.name_of_source, "teach anything new")
    images, found = images.subset(~known), found[~known]
    _refuse_foreign(detector, images, anyway, progress)
    share = 0.0 if calibrate is not None else config.calibration_share
    places = cut(groups_in(config, images, found, progress), config.validation_share, share, config.seed)
    places = places._replace(calibration=places.calibration[first_of_each(found[places.calibration])])
    parts = in_tiles(config, places.parts(images))
    method.eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(config.seed)
        said = method.learn_on(FitContext(parts.train, parts.validation, generator, progress))
    learnt = found[np.concatenate([places.train, places.validation])]
    met = {
        "learnt": Met.of(np.concatenate([record.learnt.kept, learnt])).text(),
        "calibrated": Met.of(found[places.calibration]).text(),
    }
    step = {
        "from": record.digest,
        "data_fingerprint": images.fingerprint(),
        "images": {"learnt": len(learnt), "calibration": len(places.calibration), "known": int(known.sum())},
        "said": list(said),
        "dracones": dracones.__version__,
        "fitted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 3),
    }
    provenance = {**record.provenance, "met": met, "updates": [*record.provenance.get("updates", []), step]}
    new.know(Record(record.preprocess, record.image_shape, record.interest, provenance=provenance))
    _calibrate(
        new, record, parts.calibration if calibrate is None else calibrate, progress, given=calibrate is not None
    )
    new.skipped = tuple(images.skipped)
    return Updated(new, said)


def _calibrate(new: Detector, before: Record, images: Any, progress: Progress | None, *, given: bool) -> None:
    rate = new.config.false_alarm_rate if before.false_alarm_rate is None else before.false_alarm_rate
    heat = before.heat_range
    pixels = None if heat is None or heat.rate in (None, rate) else heat.rate
    if given:
        new.calibrate(images, false_alarm_rate=rate, confidence=before.confidence, pixel_rate=pixels, progress=progress)
        return
    if len(images) == 0:
        return
    new.look_at_normal(images, progress)
    rarest = rate if pixels is None else min(rate, pixels)
    if len(new.calibration) >= Conformal.needed_count(rarest, before.confidence):
        new.calibrate(false_alarm_rate=rate, confidence=before.confidence, pixel_rate=pixels)


def _refuse_other_sizes(record: Record, images: ImageCollection) -> None:
    met = record.provenance.get("native")
    if not met:
        return
    foreign = [shape for shape in native_shapes(images) if shape not in met]
    if foreign:
        raise ValueError(
            f"the images of {images.name_of_source} are of {_words(foreign)} (channels x height x width), and those of "
            f"the fit of {_words(met)}: another camera or setting; fit anew on such images"
        )


def _words(shapes: list[list[int]]) -> str:
    shown = ", ".join("x".join(map(str, shape)) for shape in shapes[:3])
    return shown + (", ..." if len(shapes) > 3 else "")


def _refuse_foreign(detector: Detector, images: ImageCollection, anyway: bool, progress: Progress | None) -> None:
    if detector.threshold is None or anyway:
        return  # groups have thresholds of their own, and their images are of several kinds by right
    flags = detector.predict(images, maps=False, progress=progress).is_anomaly
    if flags is not None and flags.mean() > _FOREIGN:
        raise ValueError(
            f"{int(flags.sum())} of {len(flags)} images of {images.name_of_source} are called anomalous: another "
            "camera, another part, or no good ones. If they are good parts of a new kind, say so (--anyway), or fit "
            "anew on all of them"
        )
