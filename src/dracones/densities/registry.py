"""Densities by name: `create("glow", preset="tiny", image_shape=(1, 28, 28))` is the whole interface."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from typing import Any, TypeVar

import torch

from dracones.densities.density import Density

# each family registers itself on import of its module; a family is imported when first asked for
_MODULES = {
    "glow": "dracones.densities.glow",
    "realnvp": "dracones.densities.realnvp",
    "vae": "dracones.densities.vae",
    "pixelcnn": "dracones.densities.pixelcnn",
}
_BUILDERS: dict[str, Callable[..., Density]] = {}
_PRESETS: dict[str, dict[str, dict[str, Any]]] = {}

_B = TypeVar("_B", bound=Callable[..., Density])


def register(name: str, presets: Mapping[str, Mapping[str, Any]]) -> Callable[[_B], _B]:
    """Enter a density's class under `name`; it is called with `image_shape` and a preset's options."""

    def enter(builder: _B) -> _B:
        _BUILDERS[name] = builder
        _PRESETS[name] = {preset: dict(options) for preset, options in presets.items()}
        return builder

    return enter


def names() -> tuple[str, ...]:
    """Names that `create` knows.

    >>> "glow" in names()
    True
    """
    return tuple(sorted(_MODULES))


def presets(name: str) -> dict[str, dict[str, Any]]:
    """The presets of a density with their options.

    >>> "tiny" in presets("glow")
    True
    """
    if name not in _MODULES:
        raise ValueError(f"unknown density {name!r}; known are {', '.join(names())}")
    import_module(_MODULES[name])
    return {preset: dict(options) for preset, options in _PRESETS[name].items()}


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
    known = presets(name)
    if preset not in known:
        raise ValueError(f"density {name!r} has no preset {preset!r}; it has {', '.join(known)}")
    options = {**known[preset], **overrides}
    if len(tuple(image_shape)) != 3 or min(image_shape) < 1:
        raise ValueError(f"density {name!r}: image_shape must be (channels, height, width), got {tuple(image_shape)}")
    try:
        signature(_BUILDERS[name]).bind(image_shape=tuple(image_shape), **options)
    except TypeError as error:
        raise ValueError(
            f"density {name!r}: {error}; it knows {sorted(signature(_BUILDERS[name]).parameters)}"
        ) from error
    # torch's initialisers draw from the global generator: seed a fork of it and leave the caller's alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(options.get("seed", 0)))
        density = _BUILDERS[name](image_shape=tuple(image_shape), **options)
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
