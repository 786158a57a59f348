"""Heat maps as PNG: over the image, or as a layer that a page lays over it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.report.images import heat_layer, overlay
from dracones.report.picture import Picture
from dracones.serving.models import Loaded

_LARGEST = 1024


def drawn_over(image: NDArray[Any], heat: NDArray[np.float32], loaded: Loaded) -> Picture:
    """The map over its image ``[H, W, C]``, outlined where it is hotter than normal images are anywhere."""
    low, high, threshold = _scale(heat, loaded)
    return overlay(
        _as_float(image).transpose(2, 0, 1),
        heat,
        low=low,
        high=high,
        threshold=threshold,
        legend=True,
        largest=_LARGEST,
    )


def as_layer(heat: NDArray[np.float32], loaded: Loaded) -> Picture:
    """The map's colours alone; the colder, the more transparent."""
    low, high, _ = _scale(heat, loaded)
    return heat_layer(heat, low=low, high=high, largest=_LARGEST)


def _scale(heat: NDArray[np.float32], loaded: Loaded) -> tuple[float, float, float | None]:
    """By the heat of normal images; where it is not known, by this map alone."""
    if loaded.heat_range is not None:
        return *loaded.heat_range.colours, loaded.heat_range.threshold
    finite = heat[np.isfinite(heat)]
    return (float(np.median(finite)), float(finite.max()), None) if finite.size else (0.0, 1.0, None)


def _as_float(image: NDArray[Any]) -> NDArray[Any]:
    return image / np.float32(65535) if image.dtype == np.uint16 else image
