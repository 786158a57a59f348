"""A detector to and from its file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dracones.calibration import Conformal
from dracones.detectors.header import Header, divide, read_strictly, unite
from dracones.detectors.heat_range import HeatRange
from dracones.detectors.record import Record
from dracones.files import storage
from dracones.files.storage import StoredDetector
from dracones.methods import Limits, Method, MethodConfig, build, hollow, method_class

_STATE, _SCORES, _PEAKS = "state.", "calibration.scores", "calibration.peaks"


def write(path: str | Path, method: Method, config: MethodConfig, record: Record) -> Record:
    """Write a fitted method and what is known of it; the record comes back with the file's digest."""
    header, tensors, origin = _parts(method, config, record)
    return replace(record, digest=storage.write(path, header, tensors, origin).model)


def _parts(
    method: Method, config: MethodConfig, record: Record
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    _check_calibration(record)
    scores, calibration = record.calibration.state()
    peaks, heat = record.heat_range.state() if record.heat_range is not None else (None, None)
    provenance, origin = divide(record.provenance)
    header = {
        "method": method.info.name,
        "config": config.model_dump(mode="json"),
        "image_shape": list(record.image_shape),
        "preprocess": record.preprocess.model_dump(mode="json"),
        "calibration": {
            "count": int(calibration["count"]),
            "threshold": record.threshold,
            "false_alarm_rate": record.false_alarm_rate,
            "confidence": record.confidence,
            "heat": heat,
        },
        "provenance": provenance,
        "extras": method.header_extras(),
    }
    # What could not be read back is not written.
    read_strictly(Header, header, "header")
    read_strictly(type(config), header["config"], "config")
    read_strictly(method.Extras, header["extras"], "extras")
    tensors = {_STATE + name: tensor for name, tensor in method.saved_state().items()}
    tensors[_SCORES] = torch.as_tensor(scores["scores"])
    if peaks is not None:
        tensors[_PEAKS] = torch.as_tensor(peaks)
    return header, tensors, origin or {}


def read(
    path: str | Path, *, device: str | torch.device, verify: bool, runtime: Mapping[str, Any]
) -> tuple[Method, Record]:
    """A method in eval mode and its record; see `load`."""
    with storage.opened(path) as stored:
        if verify:
            stored.verify()
        with _naming(stored.path):
            header = read_strictly(Header, stored.header, "header")
            _check_treatment(header)
            method = hollow_method(header, stored, **runtime)
            built = _compared(method, stored)
            free = [name for name, tensor in built.items() if tensor is not None and not _bound(tensor, stored, name)]
            method.restore(header.extras, {name: _tensor(stored, name, tensor) for name, tensor in built.items()})
            _check_whole(method)
            # A classifier that was handed over has not met this file's options before.
            if free or "classifier" in method.info.needs:
                _rehearse(method.eval(), header.image_shape)
            record = _record(header, stored)
    return method.eval().to(device), record


def _check_treatment(header: Header) -> None:
    """What the treatment makes of an image is what the method was built for."""
    made = header.preprocess.image_shape
    if header.config.get("tile") is None and made != header.image_shape:
        raise ValueError(f"its treatment makes images of {made}, and its method takes {header.image_shape}")


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


def _compared(method: Method, stored: StoredDetector) -> dict[str, Tensor | None]:
    """The state's names, with what is built under each (None: nothing); all agree with the file in type and shape."""
    names = [name.removeprefix(_STATE) for name in stored.table.places if name.startswith(_STATE)]
    others = {name for name in stored.table.places if not name.startswith(_STATE)} - {_SCORES, _PEAKS}
    if others:
        raise ValueError(f"it holds tensors that no detector has: {', '.join(sorted(others)[:3])}")
    parameters, built = dict(method.named_parameters()), method.state_dict()
    for name in names:
        place, tensor = stored.table.places[_STATE + name], built.get(name)
        if tensor is None:
            continue  # restore names it
        halved = name in parameters and (place.dtype, tensor.dtype) == (torch.float16, torch.float32)
        if place.dtype != tensor.dtype and not halved:
            raise ValueError(f"tensor {name} is of {place.dtype}, and {method.info.name} keeps {tensor.dtype}")
        # A buffer that is built empty grows while fitting; everything else keeps its shape.
        if place.shape != tuple(tensor.shape) and (name in parameters or tensor.numel()):
            raise ValueError(
                f"it does not fit {method.info.name} as this version builds it: {name} has shape {list(place.shape)}, "
                f"expected {list(tensor.shape)}"
            )
    return {name: built.get(name) for name in names}


def _bound(built: Tensor, stored: StoredDetector, name: str) -> bool:
    """Whether all but the length of a tensor follows from what is built."""
    shape = stored.table.places[_STATE + name].shape
    return tuple(built.shape) == shape or (built.ndim > 1 and tuple(built.shape[1:]) == shape[1:])


def _rehearse(method: Method, image_shape: tuple[int, int, int]) -> None:
    """Score one blank image: shapes that the file alone decides fit one another, or do not."""
    try:
        with torch.no_grad():
            method(torch.zeros(1, *image_shape))
    except Exception as error:
        raise ValueError(f"its tensors do not fit one another: {error}") from error


def _tensor(stored: StoredDetector, name: str, built: Tensor | None) -> Tensor:
    tensor = stored.tensor(_STATE + name)
    # Widened one by one: the narrow ones are not all held beside the wide ones.
    return tensor if built is None else tensor.to(built.dtype)


def _check_whole(method: Method) -> None:
    everything = [*method.named_parameters(), *method.named_buffers()]
    lacking = [name for name, tensor in everything if tensor.is_meta]
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} tensors of {method.info.name}: {', '.join(lacking[:3])}")


def _record(header: Header, stored: StoredDetector) -> Record:
    calibration = header.calibration
    for name in {_SCORES, _PEAKS} & stored.table.places.keys():
        place = stored.table.places[name]
        if place.dtype != torch.float64 or len(place.shape) != 1:
            raise ValueError(f"{name} is no row of float64")
    if (_PEAKS in stored.table.places) != (calibration.heat is not None) or _SCORES not in stored.table.places:
        raise ValueError("its calibration and its calibration scores do not belong together")
    heat = None
    if calibration.heat is not None:
        heat = HeatRange.from_state(stored.tensor(_PEAKS).numpy(), calibration.heat.model_dump())
    record = Record(
        preprocess=header.preprocess,
        image_shape=header.image_shape,
        calibration=Conformal.from_state({"scores": stored.tensor(_SCORES).numpy()}, {"count": calibration.count}),
        false_alarm_rate=calibration.false_alarm_rate,
        confidence=calibration.confidence,
        threshold=calibration.threshold,
        heat_range=heat,
        provenance=unite(header.provenance, stored.origin),
        digest=stored.digests.model,
    )
    _check_calibration(record)
    return record


def _check_calibration(record: Record) -> None:
    """Refuse a threshold that its own calibration scores do not give.

    Raises:
        ValueError: scores that are not finite, or another threshold than they promise the rate with.
    """
    scores = record.calibration.scores
    if len(scores) and not (abs(scores) < float("inf")).all():
        raise ValueError("calibration scores: some are not finite; no threshold can be promised from them")
    if record.threshold is None or record.false_alarm_rate is None:
        return
    promised = record.calibration.threshold(record.false_alarm_rate, record.confidence)
    if record.threshold != promised:
        raise ValueError(
            f"threshold {record.threshold!r} is not what its {len(scores)} calibration scores promise a false-alarm "
            f"rate of {record.false_alarm_rate} with ({promised!r}); calibrate anew"
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever a file makes go wrong is said of the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from error
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: {reason[:2000]}") from error
