"""A detector to and from its file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dracones.calibration import Groups
from dracones.detectors.contents import (
    INTEREST,
    OWNERS,
    PEAKS,
    SCORES,
    STATE,
    bound,
    check_calibration,
    check_whole,
    compared,
    header_of,
    hollow_method,
    naming,
    points,
    record_of,
    rehearse,
    tensor_of,
)
from dracones.detectors.header import Header, divide, read_strictly
from dracones.detectors.record import Record
from dracones.files import storage
from dracones.methods import Method, MethodConfig


def write(path: str | Path, method: Method, config: MethodConfig, record: Record) -> Record:
    """Write a fitted method and what is known of it; the record comes back with the file's digest."""
    header, tensors, origin = _parts(method, config, record)
    return replace(record, digest=storage.write(path, header, tensors, origin).model)


def _parts(
    method: Method, config: MethodConfig, record: Record
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Any]]:
    check_calibration(record)
    scores, calibration = record.calibration.state()
    peaks, heat = record.heat_range.state() if record.heat_range is not None else (None, None)
    provenance, origin = divide(record.provenance)
    interest = record.interest
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
            **({} if record.groups is None else {"groups": _groups_header(record.groups)}),
        },
        "interest": None if interest is None else {"fill": list(interest.fill), "for_all": interest.mask is not None},
        "provenance": provenance,
        "extras": method.header_extras(),
    }
    # What could not be read back is not written.
    read_strictly(Header, header, "header")
    read_strictly(type(config), header["config"], "config")
    read_strictly(method.Extras, header["extras"], "extras")
    tensors = {STATE + name: tensor for name, tensor in method.saved_state().items()}
    if interest is not None and interest.mask is not None:
        tensors[INTEREST] = torch.from_numpy(interest.mask.astype(np.uint8))
    tensors[SCORES] = torch.as_tensor(scores["scores"])
    if peaks is not None:
        tensors[PEAKS] = torch.as_tensor(peaks)
    if record.groups is not None:
        tensors[OWNERS] = torch.as_tensor(record.groups.owners())
    return header, tensors, origin or {}


def _groups_header(groups: Groups) -> dict[str, Any]:
    limits = [groups.thresholds[name] for name in groups.names] if groups.thresholds else []
    return {"how": groups.how, "names": list(groups.names), "thresholds": limits}


def read(
    path: str | Path, *, device: str | torch.device, verify: bool, runtime: Mapping[str, Any]
) -> tuple[Method, Record]:
    """A method in eval mode and its record; see `load`."""
    with storage.opened(path) as stored:
        if verify:
            stored.verify()
        with naming(stored.path):
            header = header_of(stored)
            method = hollow_method(header, stored, **runtime)
            built = compared(method, stored)
            free = [name for name, tensor in built.items() if tensor is not None and not bound(tensor, stored, name)]
            method.restore(header.extras, {name: tensor_of(stored, name, tensor) for name, tensor in built.items()})
            check_whole(method)
            # A classifier that was handed over has not met this file's options before.
            if free or points(method) or "classifier" in method.info.needs:
                rehearse(method.eval(), header.image_shape)
            record = record_of(header, stored)
    return method.eval().to(device), record


def read_record(path: str | Path) -> Record:
    """What a file says beside its weights, none of which are read: treatment, calibration, provenance."""
    with storage.opened(path) as stored, naming(stored.path):
        return record_of(header_of(stored), stored)
