"""How much each anomalous pixel adds to the covered share of its region: what overlap metrics sum."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dracones.metrics.growing import Growing
from dracones.metrics.inputs import Bool, Float, to_masks, to_numpy

Shares = NDArray[np.float64]
Area = tuple[Any, float]
"""The pixels of one defect `[H, W]`, and how many of them it is enough to mark."""


class Coverage:
    """The share of every anomalous pixel so far, 4 bytes each: a place in a short table of the shares that occur."""

    def __init__(self) -> None:
        self.places = Growing(np.int32)
        self.regions = 0
        self._tables: list[Shares] = []
        self._entries = 0

    def __len__(self) -> int:
        """Number of anomalous pixels."""
        return len(self.places)

    @property
    def table(self) -> Shares:
        """The shares that `places` point to."""
        return np.concatenate(self._tables) if self._tables else np.empty(0)

    def add_regions(self, region_of: NDArray[np.int32], regions: int) -> None:
        """One image's pixels, the whole of each region being worth 1: `region_of` names it from 1."""
        if regions:
            self._append(region_of - 1, 1.0 / np.bincount(region_of, minlength=regions + 1)[1:])
            self.regions += regions

    def add_areas(self, shares: Shares, areas: int) -> None:
        """One image's pixels with the share of each, as `saturating_shares` gives them."""
        table, places = np.unique(shares, return_inverse=True)
        self._append(places.astype(np.int32), table)
        self.regions += areas

    def _append(self, places: NDArray[np.int32], table: Shares) -> None:
        self.places.append(places + np.int32(self._entries))
        self._tables.append(table)
        self._entries += len(table)


def areas_inside(areas: Sequence[Area], mask: Bool, image: int) -> list[tuple[Bool, float]]:
    """Each area as a choice among the anomalous pixels that count (`mask`), with what saturates it; empty ones left
    out.

    Raises:
        ValueError: an area of another shape, one that nothing saturates, or a marked pixel outside of all areas.
    """
    found: list[tuple[Bool, float]] = []
    covered = np.zeros(mask.shape, dtype=np.bool_)
    for number, (pixels, saturation) in enumerate(areas):
        area = to_masks(to_numpy(pixels), f"image {image}, area {number}")
        if area.shape != mask.shape:
            raise ValueError(f"image {image}, area {number}: expected shape {mask.shape}, got {area.shape}")
        if not saturation > 0:
            raise ValueError(f"image {image}, area {number}: it takes more than 0 pixels to be found, got {saturation}")
        covered |= area
        chosen = area[mask]
        if chosen.any():
            found.append((chosen, min(float(saturation), float(chosen.sum()))))
    if (mask & ~covered).any():
        raise ValueError(f"image {image}: {int((mask & ~covered).sum())} anomalous pixels lie in none of its areas")
    return found


def saturating_shares(scores: Float, areas: Sequence[tuple[Bool, float]]) -> Shares:
    """What each of an image's anomalous pixels adds where an area is found once its saturation is covered.

    Of an area with saturation s the s highest pixels add 1/s each (the last one the rest, where s is no whole number),
    the others nothing: summed from the highest score down that is min(covered / s, 1). Areas may overlap.

    Args:
        scores: `[N]`, of the anomalous pixels.
        areas: which of them belong to each area, `[N]` bool, and its saturation in pixels, at most its size.

    Example:
        >>> saturating_shares(np.array([3.0, 1.0, 2.0]), [(np.array([True, True, True]), 2.0)]).tolist()
        [0.5, 0.0, 0.5]
    """
    shares = np.zeros(len(scores))
    for chosen, saturation in areas:
        members = np.flatnonzero(chosen)
        falling = members[np.argsort(-scores[members], kind="stable")]
        shares[falling] += np.clip(saturation - np.arange(len(falling)), 0.0, 1.0) / saturation
    return shares
