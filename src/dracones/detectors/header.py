"""What a detector's file says beside its tensors: one schema, checked when it is written and when it is read."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dracones.images import Preprocess

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, lt=1)]
_Side = Annotated[int, Field(ge=1, le=65_536)]
_LARGEST_IMAGE = 2**28
_Model = TypeVar("_Model", bound=BaseModel)

_VARYING = frozenset(
    {"dracones", "torch", "python", "fitted_at", "seconds", "resumed_from", "failed_checkpoints", "processes", "host"}
)
"""Facts of a fit that differ from one equal fit to the next, at any depth of its provenance."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class HeatHeader(_Strict):
    """How hot the maps of normal images are; the peaks are a tensor."""

    usual: _Finite
    threshold: _Finite
    # Files of before promised pixels what they promised scores, and did not say so.
    rate: _Rate | None = None
    confidence: _Rate | None = None


class GroupsHeader(_Strict):
    """Groups that have calibrations of their own; which score is of which group is a tensor."""

    how: Annotated[str, Field(min_length=1, max_length=1000)] | None
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    thresholds: tuple[_Finite, ...]

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if list(self.names) != sorted(set(self.names)):
            raise ValueError("names of groups are each there once, in order")
        if self.thresholds and len(self.thresholds) != len(self.names):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.names)} groups")
        return self


class CalibrationHeader(_Strict):
    """What was promised; the calibration scores are a tensor."""

    count: Annotated[int, Field(ge=0)]
    threshold: _Finite | None
    false_alarm_rate: _Rate | None
    confidence: _Rate | None
    heat: HeatHeader | None
    groups: GroupsHeader | None = None

    @model_validator(mode="after")
    def _a_threshold_promises_a_rate(self) -> Self:
        if self.groups is not None and self.threshold is not None:
            raise ValueError("one threshold beside those of groups")
        promises = self.threshold is not None or (self.groups is not None and bool(self.groups.thresholds))
        if promises == (self.false_alarm_rate is None):
            raise ValueError("threshold and false_alarm_rate go together")
        if self.confidence is not None and not promises:
            raise ValueError("a confidence without a threshold")
        return self


class InterestHeader(_Strict):
    """A region of interest; a region that is the same for all images is a tensor."""

    fill: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, max_length=65_536)]
    for_all: bool


class Header(_Strict):
    """What a detector is.

    Attributes:
        method: its registered name.
        config: every option, validated by the method's own ``Config``.
        image_shape: ``[C, H, W]`` of what the method sees.
        preprocess: the treatment of every image.
        calibration: what was promised.
        interest: outside which nothing counts.
        provenance: what of the fit's record is the same for every equal fit.
        extras: what a method adds (`Method.header_extras`), validated by its ``Extras``.
    """

    method: Annotated[str, Field(min_length=1, max_length=100)]
    config: dict[str, Any]
    image_shape: tuple[_Side, _Side, _Side]
    preprocess: Preprocess
    calibration: CalibrationHeader
    interest: InterestHeader | None = None
    provenance: dict[str, Any]
    extras: dict[str, Any]

    @model_validator(mode="after")
    def _of_a_size_that_can_be(self) -> Self:
        channels, height, width = self.image_shape
        if channels * height * width > _LARGEST_IMAGE:
            raise ValueError(f"image_shape {list(self.image_shape)} is of more than {_LARGEST_IMAGE} numbers")
        return self


def read_strictly(model: type[_Model], content: Mapping[str, Any], where: str) -> _Model:
    """Validate what JSON holds against a model, types included: ``"3"`` is no number.

    Raises:
        ValueError: every field that does not fit, what was expected and what is there.
    """
    try:
        read = model.model_validate_json(json.dumps(content, allow_nan=False))
        # A model may be lenient towards people ("3" for 3); a file says exactly what was written.
        _check_same(content, read.model_dump(mode="json"), where)
        return read
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [
            f"{'.'.join([where, *map(str, each['loc'])])}: {each['msg']}, got {str(each['input'])[:80]}"
            for each in problems[:5]
        ]
        raise ValueError("; ".join(lines)) from None


def _check_same(given: Any, understood: Any, where: str) -> None:
    if isinstance(given, Mapping) and isinstance(understood, dict):
        for key, value in given.items():
            if key not in understood:
                raise ValueError(f"{where}.{key}: unknown")
            _check_same(value, understood[key], f"{where}.{key}")
    elif isinstance(given, list | tuple) and isinstance(understood, list) and len(given) == len(understood):
        for i, pair in enumerate(zip(given, understood, strict=True)):
            _check_same(*pair, f"{where}.{i}")
    elif given != understood or isinstance(given, bool) != isinstance(understood, bool):
        raise ValueError(f"{where}: got {str(given)[:80]}, which is read as {str(understood)[:80]}")


def divide(facts: Any) -> tuple[Any, Any]:
    """A fit's provenance in two: what every equal fit has, and what varies (``None`` where nothing does).

    >>> divide({"seed": 0, "seconds": 3.1, "training": [{"steps": 5, "seconds": 3.0}]})
    ({'seed': 0, 'training': [{'steps': 5}]}, {'seconds': 3.1, 'training': [{'seconds': 3.0}]})
    """
    if isinstance(facts, Mapping):
        parts = {key: divide(value) for key, value in facts.items() if key not in _VARYING}
        varying = {key: value for key, value in facts.items() if key in _VARYING}
        varying |= {key: other for key, (_, other) in parts.items() if other is not None}
        return {key: kept for key, (kept, _) in parts.items()}, varying or None
    if isinstance(facts, list | tuple):
        divided = [divide(each) for each in facts]
        varies = any(other is not None for _, other in divided)
        return [kept for kept, _ in divided], [other for _, other in divided] if varies else None
    return facts, None


def unite(kept: Any, varying: Any) -> Any:
    """The inverse of `divide`.

    Raises:
        ValueError: the two parts are not of one provenance.
    """
    if varying is None:
        return kept
    if isinstance(kept, dict) and isinstance(varying, dict):
        return {**kept, **{key: unite(kept[key], value) if key in kept else value for key, value in varying.items()}}
    if isinstance(kept, list) and isinstance(varying, list) and len(kept) == len(varying):
        return [unite(*pair) for pair in zip(kept, varying, strict=True)]
    raise ValueError("its record of origin does not belong to its provenance")
