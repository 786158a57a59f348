"""Heat maps judged against masks, at the images' own size and inside the region of interest."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.calibration.prediction import Prediction
from dracones.images.areas import DefectArea
from dracones.metrics import evaluate_maps


class Masked(NamedTuple):
    """Which anomalous images pixel metrics are of: their places in the prediction, and what is to be said of the rest.

    A mask that marks nothing, in all of its image or inside the region of interest, says no more than none.
    """

    places: list[int]
    notes: list[str]


def masked_places(images: Any, prediction: Prediction) -> Masked:
    """The images' places in the prediction whose masks mark something.

    Raises:
        ValueError: a mask of another size than its image.
    """
    mask_of = _masks_of(images)
    places: list[int] = []
    blank: list[str] = []
    for place, (path, heat) in enumerate(zip(prediction.paths, prediction.maps or (), strict=True)):
        mask = mask_of(path)
        if mask is None:
            continue
        if mask.shape != heat.shape:
            raise ValueError(
                f"the mask of {path} has shape {list(mask.shape)}, its image has {list(heat.shape)}; "
                "a mask must have its image's own height and width"
            )
        if mask.any():
            places.append(place)
        else:
            blank.append(path)
    count = len(prediction)
    notes = []
    if len(places) + len(blank) < count:
        notes.append(f"{count - len(places) - len(blank)} of {count} anomalous images have no mask.")
    if blank:
        where = "" if images.inside(0) is None else " inside the region of interest"
        notes.append(f"The masks of {len(blank)} of {count} anomalous images mark nothing{where}, e.g. {blank[0]}.")
    if notes:
        others = f"are of the other {len(places)} and the normal ones" if places else "have nothing to be of"
        notes.append(f"Pixel metrics {others}.")
    return Masked(places, notes)


def _masks_of(images: Any) -> Callable[[str], NDArray[np.bool_] | None]:
    """The mask of an image by its name, read when asked for."""
    # Masks are compared at the images' own resolution, whatever size the detector looks at.
    native = images.with_preprocess(None)
    place_of = {name: i for i, name in enumerate(native.names)}

    def mask_of(path: str) -> NDArray[np.bool_] | None:
        mask = native.mask(place_of[path]) if native.has_masks else None
        return None if mask is None else np.asarray(mask)

    return mask_of


def pixel_metrics(
    predictions: dict[str, Prediction],
    collections: dict[str, Any],
    masked: list[int],
    confidence: float,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Of all normal images and of the anomalous ones whose mask is known, inside the region of interest.

    A map and a mask are in memory at a time.
    """
    normal, odd = predictions["normal"], predictions["anomalous"]
    normal_maps, odd_maps = normal.maps or (), odd.maps or ()
    normal_mask, odd_mask = _masks_of(collections["normal"]), _masks_of(collections["anomalous"])

    def maps() -> Iterator[NDArray[np.float32]]:
        return chain(normal_maps, (odd_maps[place] for place in masked))

    def masks() -> Iterator[NDArray[np.bool_]]:
        for path, heat in zip(normal.paths, normal_maps, strict=True):
            mask = normal_mask(path)
            yield np.zeros(heat.shape, dtype=np.bool_) if mask is None else mask
        for place in masked:
            mask = odd_mask(odd.paths[place])
            yield np.zeros(odd_maps[place].shape, dtype=np.bool_) if mask is None else mask

    def insides() -> Iterator[NDArray[np.bool_] | None]:
        for images, paths in (
            (collections["normal"], normal.paths),
            (collections["anomalous"], [odd.paths[place] for place in masked]),
        ):
            place_of = {name: i for i, name in enumerate(images.names)}
            yield from (images.inside(place_of[path]) for path in paths)

    areas = _areas(collections["anomalous"], [odd.paths[place] for place in masked], len(normal))
    return evaluate_maps(_never_marked(maps), masks(), insides=insides(), areas=areas, confidence=confidence, seed=seed)


def _areas(anomalous: Any, paths: Sequence[str], normal: int) -> Iterator[Sequence[DefectArea]] | None:
    """The defects of each image, none for the normal ones, which come first; ``None`` where nothing saturates."""
    place_of = {name: i for i, name in enumerate(anomalous.names)}
    if any(anomalous.areas(place_of[path]) is None for path in paths[:1]):
        return None
    return chain(repeat((), normal), (anomalous.areas(place_of[path]) for path in paths))


def _never_marked(maps: Callable[[], Iterator[NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
    """Maps whose unseen pixels (NaN: what a crop cut off) are as cold as the coldest: no threshold marks them."""
    coldest = min((float(np.nanmin(heat)) for heat in maps() if not np.isnan(heat).all()), default=0.0)
    return (np.nan_to_num(heat, nan=coldest, posinf=np.inf, neginf=-np.inf) for heat in maps())
