"""What a detector's file holds, compared with what is built for it, before memory is given to anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dracones.calibration import Conformal, Groups
from dracones.calibration.heat_range import HeatRange
from dracones.detectors.header import GroupsHeader, Header, read_strictly, unite
from dracones.detectors.record import Record
from dracones.files.storage import StoredDetector
from dracones.images import Interest
from dracones.methods import Limits, Method, build, hollow, method_class

STATE, SCORES, PEAKS, OWNERS = "state.", "calibration.scores", "calibration.peaks", "calibration.owners"
INTEREST = "interest"
_REHEARSED = 3


def header_of(stored: StoredDetector) -> Header:
    """The header, validated.

    Raises:
        ValueError: fields that do not fit, or a treatment that does not make what the method takes.
    """
    header = read_strictly(Header, stored.header, "header")
    made = header.preprocess.image_shape
    if header.config.get("tile") is None and made != header.image_shape:
        raise ValueError(f"its treatment makes images of {made}, and its method takes {header.image_shape}")
    return header


def hollow_method(header: Header, stored: StoredDetector, **runtime: Any) -> Method:
    """The method that a header describes, built without memory for its weights.

    Raises:
        ValueError: unknown method, options that do not fit it, or more asked for than the file could fill.
    """
    kind = method_class(header.method)
    config = read_strictly(kind.Config, header.config, "config")
    read_strictly(kind.Extras, header.extras, "extras")
    method = kind(config, **runtime)
    with hollow(Limits.of_file(len(stored.table.places), stored.table.bytes)):
        build(method, header.image_shape)
    return method


def compared(method: Method, stored: StoredDetector) -> dict[str, Tensor | None]:
    """The state's names, with what is built under each (None: nothing); all agree with the file in type and shape."""
    names = [name.removeprefix(STATE) for name in stored.table.places if name.startswith(STATE)]
    others = {name for name in stored.table.places if not name.startswith(STATE)} - {SCORES, PEAKS, OWNERS, INTEREST}
    if others:
        raise ValueError(f"it holds tensors that no detector has: {', '.join(sorted(others)[:3])}")
    method.refuse_outdated(names)
    parameters, built = dict(method.named_parameters()), method.state_dict()
    unknown: list[str] = []
    for name in names:
        place, tensor = stored.table.places[STATE + name], built.get(name)
        if tensor is None:
            unknown.append(name)
            continue
        halved = name in parameters and (place.dtype, tensor.dtype) == (torch.float16, torch.float32)
        if place.dtype != tensor.dtype and not halved:
            raise ValueError(f"tensor {name} is of {place.dtype}, and {method.info.name} keeps {tensor.dtype}")
        # A buffer that is built empty grows while fitting; everything else keeps its shape.
        if place.shape != tuple(tensor.shape) and (name in parameters or tensor.numel()):
            raise ValueError(
                f"it does not fit {method.info.name} as this version builds it: {name} has shape {list(place.shape)}, "
                f"expected {list(tensor.shape)}"
            )
    lacking, foreign = sorted(built.keys() - set(names)), sorted(set(unknown) - _empty_buffers(method))
    if lacking or foreign:
        said = [f"lacks {', '.join(lacking[:3])}"] * bool(lacking) + [f"has also {', '.join(foreign[:3])}"] * bool(
            foreign
        )
        raise ValueError(f"it does not fit {method.info.name} as this version builds it: it {' and '.join(said)}")
    return {name: built.get(name) for name in names}


def _empty_buffers(method: Method) -> set[str]:
    """Names of buffers that hold nothing yet, which a state dict leaves out."""
    return {
        f"{path}.{leaf}".lstrip(".")
        for path, module in method.named_modules()
        for leaf, buffer in module._buffers.items()
        if buffer is None
    }


def bound(built: Tensor, stored: StoredDetector, name: str) -> bool:
    """Whether all but the length of a tensor follows from what is built."""
    shape = stored.table.places[STATE + name].shape
    return tuple(built.shape) == shape or (built.ndim > 1 and tuple(built.shape[1:]) == shape[1:])


def points(method: Method) -> bool:
    """Whether the file holds places in other tensors (chosen channels, orders): numbers that may lead outside."""
    return any(
        buffer.ndim and not buffer.is_floating_point() for buffer in method.buffers() if buffer.dtype != torch.bool
    )


def rehearse(method: Method, image_shape: tuple[int, int, int]) -> None:
    """Score blank images: shapes that the file alone decides fit one another, or do not.

    Several, as one image's row is broadcast against whatever it meets.
    """
    try:
        with torch.no_grad():
            scores = method(torch.zeros(_REHEARSED, *image_shape)).image
    except Exception as error:
        raise ValueError(f"its tensors do not fit one another: {error}") from error
    if scores.shape != (_REHEARSED,):
        raise ValueError(f"its tensors do not fit one another: {_REHEARSED} images have {list(scores.shape)} scores")


def tensor_of(stored: StoredDetector, name: str, built: Tensor | None) -> Tensor:
    """One tensor of the state, in the type that is built for it."""
    tensor = stored.tensor(STATE + name)
    # Widened one by one: the narrow ones are not all held beside the wide ones.
    return tensor if built is None else tensor.to(built.dtype)


def check_whole(method: Method) -> None:
    """Refuse a method of which something is still without numbers."""
    everything = [*method.named_parameters(), *method.named_buffers()]
    lacking = [name for name, tensor in everything if tensor.is_meta]
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} tensors of {method.info.name}: {', '.join(lacking[:3])}")


def record_of(header: Header, stored: StoredDetector) -> Record:
    """The record: treatment, calibration, provenance; its promise is checked against its scores."""
    calibration = header.calibration
    for name in {SCORES, PEAKS} & stored.table.places.keys():
        place = stored.table.places[name]
        if place.dtype != torch.float64 or len(place.shape) != 1:
            raise ValueError(f"{name} is no row of float64")
    if (PEAKS in stored.table.places) != (calibration.heat is not None) or SCORES not in stored.table.places:
        raise ValueError("its calibration and its calibration scores do not belong together")
    heat = None
    if calibration.heat is not None:
        heat = HeatRange.from_state(
            stored.tensor(PEAKS).numpy(),
            calibration.heat.model_dump(),
            false_alarm_rate=calibration.false_alarm_rate,
            confidence=calibration.confidence,
        )
    pooled = Conformal.from_state({"scores": stored.tensor(SCORES).numpy()}, {"count": calibration.count})
    record = Record(
        preprocess=header.preprocess,
        image_shape=header.image_shape,
        interest=_interest_of(header, stored),
        calibration=pooled,
        false_alarm_rate=calibration.false_alarm_rate,
        confidence=calibration.confidence,
        threshold=calibration.threshold,
        groups=_groups_of(calibration.groups, pooled, stored),
        heat_range=heat,
        provenance=unite(header.provenance, stored.origin),
        digest=stored.digests.model,
    )
    check_calibration(record)
    return record


def _groups_of(header: GroupsHeader | None, pooled: Conformal, stored: StoredDetector) -> Groups | None:
    """The groups, from the place among their names that each score in the file is of."""
    if (OWNERS in stored.table.places) != (header is not None):
        raise ValueError("its groups and the groups of its calibration scores do not belong together")
    if header is None:
        return None
    place = stored.table.places[OWNERS]
    if place.dtype != torch.int64 or place.shape != (len(pooled),):
        raise ValueError(f"{OWNERS} is no row of {len(pooled)} whole numbers")
    owners = stored.tensor(OWNERS).numpy()
    if not np.array_equal(np.unique(owners), np.arange(len(header.names))):
        raise ValueError(f"{OWNERS} does not give scores to each of {len(header.names)} groups and no other")
    calibrations = {name: Conformal().fit(pooled.scores[owners == i]) for i, name in enumerate(header.names)}
    thresholds = dict(zip(header.names, header.thresholds, strict=False)) if header.thresholds else {}
    return Groups(calibrations, header.how, thresholds)


def _interest_of(header: Header, stored: StoredDetector) -> Interest | None:
    said = header.interest
    if (INTEREST in stored.table.places) != (said is not None and said.for_all):
        raise ValueError("its region of interest and its header do not belong together")
    if said is None or not said.for_all:
        return None if said is None else Interest(None, said.fill)
    place = stored.table.places[INTEREST]
    if place.dtype != torch.uint8 or len(place.shape) != 2:
        raise ValueError("its region of interest is no image of uint8")
    mask = stored.tensor(INTEREST).numpy() != 0
    if not mask.any():
        raise ValueError("its region of interest is empty")
    return Interest(mask, said.fill)


def check_calibration(record: Record) -> None:
    """Refuse a threshold that its own calibration scores do not give.

    Raises:
        ValueError: scores that are not finite, or another threshold than they promise the rate with.
    """
    scores = record.calibration.scores
    if len(scores) and not (abs(scores) < float("inf")).all():
        raise ValueError("calibration scores: some are not finite; no threshold can be promised from them")
    if record.groups is not None and record.groups.thresholds and record.false_alarm_rate is not None:
        promised_by = record.groups.at(record.false_alarm_rate, record.confidence).thresholds
        if promised_by != record.groups.thresholds:
            raise ValueError(
                f"thresholds {dict(record.groups.thresholds)} are not what the groups' calibration scores promise a "
                f"false-alarm rate of {record.false_alarm_rate} with ({promised_by}); calibrate anew"
            )
    if record.threshold is None or record.false_alarm_rate is None:
        return
    promised = record.calibration.threshold(record.false_alarm_rate, record.confidence)
    if record.threshold != promised:
        raise ValueError(
            f"threshold {record.threshold!r} is not what its {len(scores)} calibration scores promise a false-alarm "
            f"rate of {record.false_alarm_rate} with ({promised!r}); calibrate anew"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever a file makes go wrong is said of the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from error
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: {reason[:2000]}") from error
