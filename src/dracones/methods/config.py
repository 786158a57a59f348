"""Options of a method and of the detector around it: typed, immutable, refused by name when unknown."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator


class MethodConfig(BaseModel):
    """What every method can be told; each method's ``Config`` adds its own fields with its paper's defaults.

    >>> MethodConfig.from_options(seed=3).seed
    3
    >>> MethodConfig.from_options(sed=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: unknown option 'sed' for MethodConfig; did you mean 'seed' or 'size'? Known: size, channels, ...
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    size: tuple[int, int] | None = Field(
        None, description="height, width that images are brought to; the images' own when they all agree"
    )
    channels: int | None = Field(None, ge=1, description="channels; the images' own when not given")
    fit: Literal["stretch", "cover", "contain"] = Field(
        "stretch", description="how another shape meets size: stretched; covering it, rest cut off; contained, padded"
    )
    crop: tuple[int, int] | None = Field(None, description="height, width cut from the centre after resizing")
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field(
        "bilinear", description="resizing filter; the first two are antialiased when they shrink"
    )
    tile: tuple[int, int] | None = Field(
        None, description="height, width of overlapping tiles that images are cut in, for large images; none by default"
    )
    tile_overlap: int = Field(0, ge=0, description="pixels by which tiles overlap at least")
    seed: int = Field(0, ge=0, description="seed of weights, batch order and dequantisation")
    validation_share: float = Field(
        0.1, ge=0, lt=0.9, description="share of the normal images that stops training and fits the rule"
    )
    calibration_share: float = Field(
        0.1, ge=0, lt=0.9, description="share of the normal images kept aside for p-values and threshold"
    )
    group_by: str | None = Field(
        None,
        description="what keeps images on one side of the cuts: 'folder', or a regular expression on their names whose "
        "first group they share (frames of one film, views of one part); copies always stay together",
    )
    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="share of normal images that may be called anomalous")

    @field_validator("group_by")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not 'folder', and no regular expression: {error}") from None
        return value

    @field_validator("size", "crop", "tile", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """Validate options given by name; ``training.epochs`` may be written ``epochs``.

        Raises:
            ValueError: an unknown option (the nearest names are given) or a value that does not fit, with its field.
        """
        try:
            config = cls.model_validate(cls._nest(options))
        except ValidationError as error:
            raise ValueError(cls._explain(error)) from None
        config._refuse_decided_elsewhere()
        return config

    def _refuse_decided_elsewhere(self) -> None:
        """Refuse what a training run takes from the fit around it: it would be overwritten without a word."""
        training = getattr(self, "training", None)
        if not isinstance(training, BaseModel):
            return
        for name, advice in _DECIDED_ELSEWHERE.items():
            if getattr(training, name) != type(training).model_fields[name].default:
                raise ValueError(
                    f"option 'training.{name}' of {type(self).__qualname__} would change nothing: {advice}"
                )

    @classmethod
    def _nest(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Move dotted keys and bare training keys to where they belong."""
        training = _fields_of(cls, "training")
        nested: dict[str, Any] = {}
        for key, value in options.items():
            path = key.split(".")
            if len(path) == 1 and key not in cls.model_fields and key in training:
                path = ["training", key]
            _put(nested, path, value)
        for name, field in cls.model_fields.items():
            # A partial nested table keeps the method's own defaults for the rest.
            if isinstance(nested.get(name), dict) and isinstance(field.default, BaseModel):
                nested[name] = {**field.default.model_dump(), **nested[name]}
        return nested

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        lines = []
        for problem in error.errors():
            where = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                names = [*cls.model_fields, *_fields_of(cls, "training")]
                near = get_close_matches(str(problem["loc"][-1]), names, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
                lines.append(f"unknown option {where!r} for {cls.__qualname__}; {hint}Known: {', '.join(names)}")
            else:
                lines.append(f"option {where!r} of {cls.__qualname__}: {problem['msg']}, got {problem['input']!r}")
        return "\n".join(lines)


_DECIDED_ELSEWHERE = {
    "seed": "weights, order and noise follow 'seed'; give seed=... alone",
    "device": "give it to fit(device=...), --device on the command line",
}


def _fields_of(config: type[BaseModel], name: str) -> tuple[str, ...]:
    field = config.model_fields.get(name)
    annotation = field.annotation if field is not None else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return tuple(field for field in annotation.model_fields if field not in _DECIDED_ELSEWHERE)
    return ()


def _put(table: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        inner = table.setdefault(key, {})
        if isinstance(inner, BaseModel):
            inner = table[key] = inner.model_dump()
        table = inner
    table[path[-1]] = value
