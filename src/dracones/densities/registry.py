"""Densities by name: `create("glow", preset="tiny", image_shape=(1, 28, 28))` is the whole interface."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import signature
from typing import Any, NamedTuple, TypeVar

import torch

from dracones.densities.density import Density
from dracones.registry import Registry


class Family(NamedTuple):
    """A density's class, called with `image_shape` and a preset's options, and its presets."""

    builder: Callable[..., Density]
    presets: dict[str, dict[str, Any]]


# Each family enters itself on import of its module; a family is imported when first asked for.
DENSITIES: Registry[Family] = Registry(
    "density",
    {name: f"dracones.densities.{name}" for name in ("glow", "pixelcnn", "realnvp", "vae")},
    group="dracones.densities",
)

_B = TypeVar("_B", bound=Callable[..., Density])


def register(name: str, presets: Mapping[str, Mapping[str, Any]]) -> Callable[[_B], _B]:
    """Enter a density's class under `name`; it is called with `image_shape` and a preset's options."""

    def enter(builder: _B) -> _B:
        DENSITIES.enter(name, Family(builder, {preset: dict(options) for preset, options in presets.items()}))
        return builder

    return enter


def names() -> tuple[str, ...]:
    """Names that `create` knows.

    >>> "glow" in names()
    True
    """
    return DENSITIES.names()


def presets(name: str) -> dict[str, dict[str, Any]]:
    """The presets of a density with their options.

    >>> "tiny" in presets("glow")
    True
    """
    return {preset: dict(options) for preset, options in DENSITIES[name].presets.items()}


def check_options(name: str, preset: str, overrides: Mapping[str, Any]) -> None:
    """Refuse a preset or an option that a density does not know, before anything is built.

    Raises:
        ValueError: unknown name, preset or option; the nearest are named.

    >>> check_options("glow", "tinny", {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: density 'glow' has no preset 'tinny'; did you mean 'tiny'? It has tiny, small, ...
    """
    family = DENSITIES[name]
    if preset not in family.presets:
        raise ValueError(
            f"density {name!r} has no preset {preset!r}; {_near(preset, family.presets)}It has "
            f"{', '.join(family.presets)}"
        )
    known = [each for each in signature(family.builder).parameters if each != "image_shape"]
    for option in overrides:
        if option not in known:
            raise ValueError(
                f"density {name!r} has no option {option!r}; {_near(option, known)}It knows {', '.join(known)}"
            )


def _near(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    near = get_close_matches(word, list(known), n=2, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def create(name: str, preset: str = "tiny", *, image_shape: Sequence[int], **overrides: Any) -> Density:
    """A new density with the options of `preset`, each of which can be overridden by name.

    Weights are drawn from `seed` (an option of every density, default 0), not from the global generator.
    Raises `ValueError` for an unknown name, preset or option.

    >>> density = create("glow", preset="tiny", image_shape=(1, 8, 8), steps=2)
    >>> density.config["overrides"]
    {'steps': 2}
    >>> rebuilt = create(density.config["name"], density.config["preset"],
    ...                  image_shape=density.config["image_shape"], **density.config["overrides"])
    >>> missing = rebuilt.load_state_dict(density.state_dict())
    """
    check_options(name, preset, overrides)
    family = DENSITIES[name]
    options = {**family.presets[preset], **overrides}
    if len(tuple(image_shape)) != 3 or min(image_shape) < 1:
        raise ValueError(f"density {name!r}: image_shape must be (channels, height, width), got {tuple(image_shape)}")
    # torch's initialisers draw from the global generator: seed a fork of it and leave the caller's alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(options.get("seed", 0)))
        density = family.builder(image_shape=tuple(image_shape), **options)
    density.config = {
        "name": name,
        "preset": preset,
        "image_shape": [int(side) for side in image_shape],
        "overrides": dict(overrides),
    }
    return density


def from_config(config: Mapping[str, Any]) -> Density:
    """The density that `config` (a density's own `config`, maybe through JSON) describes, with fresh weights.

    >>> from_config({"name": "glow", "preset": "tiny", "image_shape": [1, 8, 8], "overrides": {}}).dimensions
    64
    """
    return create(config["name"], config["preset"], image_shape=config["image_shape"], **config.get("overrides", {}))
