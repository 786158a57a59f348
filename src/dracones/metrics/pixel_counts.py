"""The counts behind every pixel metric: normal scores sorted, the few anomalous ones looked up among them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.metrics.coverage import Coverage
from dracones.metrics.inputs import Float
from dracones.metrics.ranking import order_preserving_bits, scores_of_bits
from dracones.metrics.staircase import BLOCK, Steps

Integers = NDArray[np.int64]


class PixelCounts(NamedTuple):
    """All normal scores, sorted, and at each distinct score of an anomalous pixel, ascending, what lies below it.

    `*_below`: strictly below; `*_up_to`: ties included. `overlap`: mean share of a region at or above the score;
    `saturated`: the same of what saturates a defect, where that is known.
    """

    normal: Float
    levels: Float
    normal_below: Integers
    normal_up_to: Integers
    anomalous_below: Integers
    anomalous_up_to: Integers
    overlap: NDArray[np.float64]
    saturated: NDArray[np.float64] | None


def count_pixels(normal: Float, anomalous: Float, regions: Coverage, areas: Coverage | None) -> PixelCounts:
    """Counts from unsorted scores, and what each anomalous pixel adds to its region and to its saturating areas."""
    normal = np.sort(normal)
    scores, places = _sort_with_payload(anomalous, regions.places.values)
    last = np.append(scores[1:] != scores[:-1], True)
    up_to = np.flatnonzero(last) + 1
    below = np.append(0, up_to[:-1])
    levels = scores[last]
    normal_below = np.searchsorted(normal, levels, side="left")
    normal_up_to = normal_below.copy()
    # Only where a normal pixel ties is a second look-up needed.
    tied = normal[np.minimum(normal_below, len(normal) - 1)] == levels
    normal_up_to[tied] = np.searchsorted(normal, levels[tied], side="right")
    saturated = None
    if areas is not None:
        _, of_areas = _sort_with_payload(anomalous, areas.places.values)
        saturated = _covered(areas.table[of_areas])[below]
    overlap = _covered(regions.table[places])[below]
    return PixelCounts(normal, levels, normal_below, normal_up_to, below, up_to, overlap, saturated)


def _covered(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of all that is covered by each pixel and those above it, from shares by ascending score."""
    # From the highest score down, so that what matters most, small false positive rates, is summed first.
    covered = np.cumsum(shares[::-1])[::-1]
    # The whole sum is the number of regions but for rounding; divided by itself it ends at exactly 1.
    found: NDArray[np.float64] = covered / covered[0]
    return found


def steps_of_anomalous(counts: PixelCounts) -> Iterator[Steps]:
    """Steps at the distinct scores of anomalous pixels, which are the class to be found."""
    normal, anomalous = len(counts.normal), counts.anomalous_up_to[-1]
    for start in range(0, len(counts.levels), BLOCK):
        part = slice(start, start + BLOCK)
        yield Steps(
            anomalous - counts.anomalous_up_to[part],
            anomalous - counts.anomalous_below[part],
            normal - counts.normal_up_to[part],
            normal - counts.normal_below[part],
        )


def steps_of_normal(counts: PixelCounts) -> Iterator[Steps]:
    """Steps at the distinct scores of normal pixels, which are the class to be found."""
    anomalous = np.append(0, counts.anomalous_up_to)
    start = 0
    while start < len(counts.normal):
        # A block ends where a run of ties does.
        last_score = counts.normal[min(start + BLOCK, len(counts.normal)) - 1]
        stop = int(np.searchsorted(counts.normal, last_score, side="right"))
        block = counts.normal[start:stop]
        begins = np.append(0, np.flatnonzero(block[1:] != block[:-1]) + 1) + start
        # A level is <= a normal score when no more normal scores lie below it, < when as few lie up to it.
        up_to = anomalous[_levels_passed(counts.normal_below, begins)]
        before = anomalous[_levels_passed(counts.normal_up_to, begins)]
        yield Steps(begins, np.append(begins[1:], stop), before, up_to)
        start = stop


def _levels_passed(places: Integers, begins: Integers) -> Integers:
    """For each of `begins`, how many of the (ascending) places are at most that; looked up the cheaper way round."""
    low, high = np.searchsorted(places, begins[0], side="right"), np.searchsorted(places, begins[-1], side="right")
    entered = np.searchsorted(begins, places[low:high], side="left")
    passed: Integers = low + np.cumsum(np.bincount(entered, minlength=len(begins)))
    return passed


def _sort_with_payload(scores: Float, payload: NDArray[np.int32]) -> tuple[Float, Integers]:
    """Both by ascending score; float32 scores and payload share one 64-bit key, which needs no argsort."""
    if scores.dtype == np.float32:
        keys = order_preserving_bits(scores).astype(np.int64)
        keys <<= 32
        keys |= payload
        keys.sort()
        return scores_of_bits((keys >> 32).astype(np.int32)), keys & 0xFFFFFFFF
    order = np.argsort(scores)
    return scores[order], payload[order].astype(np.int64)
