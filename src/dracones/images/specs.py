"""Images that need no file, by name: `builtin:gravel?count=500&size=32`, `synthetic:uniform`, `scenes:grass`."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import get_args

import numpy as np
import torch

from dracones.images.builtin.photographs import builtin_photograph, builtin_photographs, crops
from dracones.images.builtin.scenes import ScenesSource, blob_cutouts, coin_cutouts, compose_scenes
from dracones.images.builtin.synthetic import Kind, SyntheticSource
from dracones.images.sources import ArraySource, ImageSource

Value = int | float | str
# Option -> default; the default's type is the option's type.
_CROPS: dict[str, Value] = {"count": 0, "size": 0, "seed": 0, "left": 0.0, "right": 1.0, "channels": 0}
_NOISE: dict[str, Value] = {"count": 1000, "size": 32, "seed": 0, "channels": 3}
_SCENES: dict[str, Value] = {
    "objects": "coins",
    "count": 100,
    "size": 128,
    "seed": 0,
    "share": 0.5,
    "left": 0.0,
    "right": 1.0,
    "channels": 0,
}


def named_source(spec: str) -> ImageSource:
    """The images that `KIND:NAME?option=value&...` names.

    - `builtin:NAME`: the photograph, or with `count` and `size` that many random crops of it (`seed`); `left` and
      `right` cut it first, in shares of its width, so that two sets of crops need not overlap; `channels` 1 or 3.
    - `synthetic:uniform`, `synthetic:gaussian`, `synthetic:constant`: `count`, `size`, `channels`, `seed`.
    - `scenes:NAME`: crops of a photograph, `share` of them with a foreign object out of `objects` (`coins`, or a
      photograph), with labels and masks.

    Raises:
        ValueError: an unknown name, option or value; what there is is listed.

    Example:
        >>> len(named_source("builtin:gravel?count=20&size=32&right=0.5"))
        20
    """
    kind, _, rest = spec.partition(":")
    name, _, query = rest.partition("?")
    if kind == "synthetic":
        if name not in get_args(Kind):
            raise ValueError(f"{spec}: name one of {', '.join(f'synthetic:{k}' for k in get_args(Kind))}")
        options = _options(spec, query, _NOISE)
        size, channels = int(options["size"]), int(options["channels"])
        return SyntheticSource(name, int(options["count"]), (channels, size, size), int(options["seed"]))  # type: ignore[arg-type]
    if not name:
        raise ValueError(f"'{kind}:' needs a photograph's name: {', '.join(builtin_photographs())}")
    return _crops(spec, name, query) if kind == "builtin" else _scenes(spec, name, query)


def _crops(spec: str, name: str, query: str) -> ImageSource:
    options = _options(spec, query, _CROPS)
    photo = _part(spec, name, options)
    if bool(options["count"]) != bool(options["size"]):
        raise ValueError(f"{spec}: crops need both count and size, e.g. builtin:{name}?count=500&size=32")
    images = (
        crops(photo, int(options["size"]), int(options["count"]), int(options["seed"]))
        if options["count"]
        else photo[None]
    )
    levels = images.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return ArraySource(levels.numpy(), spec)


def _scenes(spec: str, name: str, query: str) -> ImageSource:
    options = _options(spec, query, _SCENES)
    size, seed, objects = int(options["size"]), int(options["seed"]), str(options["objects"])
    pieces = (
        coin_cutouts()
        if objects == "coins"
        else blob_cutouts(builtin_photograph(objects), 32, max(16, size // 2), seed)
    )
    surface = _part(spec, name, options)
    return ScenesSource(
        compose_scenes(surface, pieces, size, int(options["count"]), seed, share=float(options["share"])), spec
    )


def _part(spec: str, name: str, options: Mapping[str, Value]) -> torch.Tensor:
    photo = builtin_photograph(name, channels=int(options["channels"]) or None)
    left, right = float(options["left"]), float(options["right"])
    if not 0 <= left < right <= 1:
        raise ValueError(f"{spec}: left={left:g} and right={right:g} are shares of the width, 0 <= left < right <= 1")
    first, last = np.rint(np.array([left, right]) * photo.shape[2]).astype(int)
    return photo[:, :, int(first) : int(last)]


def _options(spec: str, query: str, known: Mapping[str, Value]) -> dict[str, Value]:
    options = dict(known)
    for pair in filter(None, query.split("&")):
        key, _, text = pair.partition("=")
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise ValueError(f"{spec}: no option '{key}'{hint}; there are {', '.join(known)}")
        kind = type(known[key])
        try:
            options[key] = kind(text)
        except ValueError as error:
            raise ValueError(f"{spec}: {key}={text!r} is no {kind.__name__}") from error
        if kind is int and int(options[key]) < 0:
            raise ValueError(f"{spec}: {key}={text} is negative")
    return options
