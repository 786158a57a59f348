"""Heat maps with their masks, image by image, however the two are given."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dracones.metrics.inputs import Bool, Float, to_masks, to_numpy, to_scores


def pairs(maps: Any, masks: Any) -> Iterator[tuple[Float, Bool]]:
    """Map and mask, image by image, each converted only when its turn comes."""
    if _dimensions(maps) == 2:
        maps, masks = [maps], [masks]
    for index, (scores, mask) in enumerate(_same_length(maps, masks)):
        yield to_scores(scores, f"map {index}"), to_masks(to_numpy(mask), f"mask {index}")


def _dimensions(maps: Any) -> int | None:
    if hasattr(maps, "ndim"):
        return int(maps.ndim)
    if isinstance(maps, list | tuple) and maps and not hasattr(maps[0], "ndim"):
        return np.ndim(maps)
    return None


def _same_length(maps: Iterable[Any], masks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    try:
        yield from zip(maps, masks, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise ValueError(f"maps and masks: expected one mask for each map, got more of one ({error})") from None
