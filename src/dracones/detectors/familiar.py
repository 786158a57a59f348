"""Images that a detector has met: a promise about new images cannot be set, or tested, on those it learnt from."""

import hashlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dracones.calibration import Conformal, Met, TooFewScores
from dracones.calibration.met import UNREADABLE, Digests
from dracones.images import ImageListing, UnreadableImage, reading_threads
from dracones.images.prefetch import in_order
from dracones.training import Progress, counting

_LEVEL_16 = 257
"""What an 8-bit level is in 16 bits."""


def digests(images: Any, progress: Progress | None = None) -> Digests:
    """A digest of 8 bytes of each image's pixels, ``[N]``; `UNREADABLE` (0) for one that cannot be read.

    Names, files and formats do not count: a copy, a link, the same picture saved losslessly in another format, or as
    an array of floats, has the same digest. Gray has the digest of its RGB version, 8 bits of their 16-bit version.
    """
    native = images.with_preprocess(None)

    def attempt(index: int) -> int | UnreadableImage:
        try:
            return digest_of_pixels(native.read_native(index))
        except UnreadableImage as error:
            return error

    found = np.zeros(len(images), dtype=np.uint64)
    with counting(progress, len(images), "comparing images") as count:
        for index, result in enumerate(in_order(attempt, range(len(images)), reading_threads(), ahead=8)):
            if isinstance(result, UnreadableImage):
                images.skip(result)
            else:
                found[index] = result
            if count is not None:
                count(1)
    return found


def digest_of_pixels(image: ArrayLike) -> int:
    """A number of 64 bits, not 0, for an image ``[C, H, W]`` in any of the types that images come in."""
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        pixels = np.rint(np.nan_to_num(pixels) * 65535.0).clip(0, 65535).astype(np.uint16)
    if pixels.dtype == np.uint16 and not (pixels % _LEVEL_16).any():
        pixels = (pixels // _LEVEL_16).astype(np.uint8)
    if len(pixels) == 3 and (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all():
        pixels = pixels[:1]
    state = hashlib.blake2b(f"{pixels.dtype.str}{pixels.shape}".encode(), digest_size=8)
    state.update(np.ascontiguousarray(pixels).data)
    return int.from_bytes(state.digest(), "little") or 1


def first_of_each(found: Digests) -> NDArray[np.intp]:
    """Places of the first image of each content, rising; images that cannot be read are all kept, as they tell why."""
    _, first = np.unique(found, return_index=True)
    return np.sort(np.union1d(first, np.flatnonzero(found == UNREADABLE)))


def refuse_learnt(learnt: Met, found: Digests, source: str, purpose: str) -> NDArray[np.bool_]:
    """Which images the detector learnt from, after a warning; a set that is mostly of them is refused.

    Args:
        learnt: what the fit met.
        found: digests of the images at hand.
        source: what they were opened from, for the message.
        purpose: what they were to do, as in "set a threshold".

    Raises:
        ValueError: more than half of the distinct images were learnt from.
    """
    known = learnt.holds(found)
    count, share = int(known.sum()), learnt.share(found)
    if share > 0.5:
        said = f"all {len(found)}" if count == len(found) else f"{count} of {len(found)}"
        raise ValueError(
            f"{said} images of {source} are ones this detector learnt from (it trained on them, or stopped by them); "
            f"scores of learnt images are lower than those of new ones, so they cannot {purpose}: give normal images "
            "that no fit has seen"
        )
    if count:
        warnings.warn(
            f"{count} of {len(found)} images of {source} are ones this detector learnt from; they cannot {purpose} and "
            "are left out",
            RuntimeWarning,
            stacklevel=3,
        )
    return known


def refuse_anomalous(images: ImageListing, purpose: str) -> None:
    """Images that their own set calls anomalous are not taken for normal ones.

    Args:
        images: as they were opened.
        purpose: what they were to do, as in "be learnt from".

    Raises:
        ValueError: the set tells good from anomalous images, and some are anomalous.
    """
    labels = images.labels
    if images.classes != ("normal", "anomalous") or labels is None or not labels.any():
        return
    odd = np.flatnonzero(labels)
    raise ValueError(
        f"{len(odd)} of {len(images)} images of {images.name_of_source} are labelled anomalous, e.g. "
        f"{images.name(int(odd[0]))}, and cannot {purpose} as normal ones: name the normal part alone, such as train "
        "or test/good"
    )


def chosen_for_calibration(
    learnt: Met,
    images: ImageListing,
    rate: float,
    confidence: float | None,
    progress: Progress | None,
) -> tuple[NDArray[np.intp], Digests]:
    """Places of the images whose scores may set a threshold, with their digests: one of each content, none learnt from.

    Raises:
        ValueError: most of them were learnt from.
        TooFewScores: too few distinct ones for the rate.
    """
    needed = Conformal.needed_count(rate, confidence)
    if len(images) < needed:
        raise TooFewScores(len(images), needed, rate, confidence)
    found = digests(images, progress)
    known = refuse_learnt(learnt, found, images.name_of_source, "set a threshold")
    first = first_of_each(found)
    chosen = first[~known[first]]
    copies = len(found) - len(first)
    if copies:
        warnings.warn(
            f"{copies} of {len(found)} images of {images.name_of_source} are copies of others; each image counts once, "
            f"which leaves {len(first)} distinct ones",
            RuntimeWarning,
            stacklevel=3,
        )
    if len(chosen) < needed:
        less = f"{int(known.sum())} were learnt from" if known.any() else ""
        less += " and " if known.any() and copies else ""
        less += f"{copies} are copies" if copies else ""
        raise TooFewScores(len(chosen), needed, rate, confidence, f" distinct ones ({less} of {len(found)} images)")
    return chosen, found[chosen]
