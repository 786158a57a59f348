"""How small and how faint a made defect may be and still raise the alarm that was promised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dracones.detectors.alarms import Alarms
from dracones.detectors.detector import Detector
from dracones.detectors.familiar import digests, refuse_learnt
from dracones.detectors.interests import within_regions_of
from dracones.images import (
    DEFECT_KINDS,
    Defect,
    DefectKind,
    ImageCollection,
    levels_of,
    open_images,
    with_defect,
)
from dracones.training import Progress

SIZES = (0.02, 0.04, 0.08, 0.16, 0.32)
CONTRASTS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Cell:
    """Defects of one kind, size and contrast: how many of them raised an alarm."""

    kind: DefectKind
    size: float
    contrast: float
    found: Alarms


@dataclass(frozen=True)
class Sensitivity:
    """Detection rates of made defects at the threshold that promises the false-alarm rate.

    Attributes:
        cells: one for each kind, size and contrast.
        good: the images themselves, without a defect: the realised false alarms.
        false_alarm_rate: promised.
        examples: of each kind, at the highest contrast, a made defect of each size.
        notes: what is to be known about the numbers, in sentences.
    """

    cells: tuple[Cell, ...]
    good: Alarms
    false_alarm_rate: float
    examples: dict[DefectKind, list[Defect]]
    notes: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, a line a cell."""
        return [
            {
                "kind": cell.kind,
                "size": cell.size,
                "contrast": cell.contrast,
                "found": cell.found.count,
                "of": cell.found.total,
                "rate": cell.found.share.value,
                "low": cell.found.share.low,
                "high": cell.found.share.high,
            }
            for cell in self.cells
        ]

    def seen_from(self, kind: DefectKind, contrast: float, share: float = 0.9) -> float | None:
        """The size from which on at least this share is found, at every measured size; ``None``: at no size."""
        found = None
        for cell in sorted(self.cells, key=lambda cell: -cell.size):
            if (cell.kind, cell.contrast) == (kind, contrast):
                if cell.found.share.value < share:
                    break
                found = cell.size
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "false_alarm_rate": self.false_alarm_rate,
            "good": self.good.to_json(),
            "cells": self.rows(),
            "notes": list(self.notes),
        }


def sensitivity(
    detector: Detector,
    data: Any,
    *,
    sizes: Sequence[float] = SIZES,
    contrasts: Sequence[float] = CONTRASTS,
    kinds: Sequence[DefectKind] = DEFECT_KINDS,
    defects: int = 20,
    seed: int = 0,
    confidence: float = 0.95,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Sensitivity:
    """Make defects on good images that the detector has not learnt from, and count those that raise an alarm.

    The defects are synthetic: they tell which sizes and contrasts can be seen at all, and not how real defects, which
    look otherwise, will fare. A defect is followed through all sizes and contrasts with the same draws in the same
    image, so that neighbouring cells differ by little else.

    Args:
        detector: calibrated.
        data: good images.
        sizes: extents, as shares of the image's shorter side (a scar is twice as long).
        contrasts: shares of the full change.
        kinds: of defects; see `dracones.images.with_defect`.
        defects: of each kind, in each cell.
        seed: of images, places, shapes and contents.
        confidence: of the exact intervals.
        batch_size: images scored together.
        progress: is told how far the scoring is.

    Raises:
        ValueError: no threshold, no good image, images that were learnt from, sizes or contrasts outside (0, 1].
    """
    record = detector.fitted()
    rate = record.false_alarm_rate
    if rate is None:
        raise ValueError("no threshold is set, so nothing can be missed or found; call calibrate(normal_images) first")
    if defects < 1:
        raise ValueError(f"defects={defects}: at least one of each kind is expected")
    _check("sizes", sizes)
    _check("contrasts", contrasts)
    images = detector.open(data)
    fresh = images.subset(~refuse_learnt(record.learnt, digests(images, progress), images.name_of_source, "judge it"))
    good = detector.predict(fresh, batch_size=batch_size, maps=False, progress=progress)
    if len(good) == 0 or good.is_anomaly is None:
        raise ValueError(f"none of the {len(images)} images of {images.name_of_source} can be read")
    unread = {item.name for item in good.errors}
    readable = fresh.subset([i for i, name in enumerate(fresh.names) if name not in unread])
    made = _Made(readable, list(kinds), sorted(sizes), sorted(contrasts), defects, seed)
    with_defects = within_regions_of(readable, open_images(made), (made.place(i) for i in range(len(made))))
    scored = detector.predict(with_defects, batch_size=batch_size, maps=False, strict=True, progress=progress)
    if scored.is_anomaly is None:
        raise ValueError("no verdicts on the made defects")
    flags = scored.is_anomaly.reshape(len(kinds), len(made.sizes), len(made.contrasts), defects)
    cells = [
        Cell(kind, size, contrast, Alarms.of(flags[k, s, c], confidence))
        for k, kind in enumerate(made.kinds)
        for s, size in enumerate(made.sizes)
        for c, contrast in enumerate(made.contrasts)
    ]
    notes = [
        "The defects are synthetic: they say which sizes and contrasts can be seen at all, not which real defects will "
        "be found."
    ]
    if len(readable) < defects:
        notes.append(
            f"{defects} defects of each kind lie on {len(readable)} images: several on one image are less than as many "
            "images would tell, and the intervals are too narrow."
        )
    return Sensitivity(tuple(cells), Alarms.of(good.is_anomaly, confidence), rate, made.examples(), tuple(notes))


def _check(what: str, shares: Sequence[float]) -> None:
    if not shares or any(not 0 < share <= 1 for share in shares) or len(set(shares)) < len(shares):
        raise ValueError(f"{what}: expected different shares in (0, 1], got {list(shares)}")


class _Made(Dataset[Tensor]):
    """Good images with a made defect each: kind by size by contrast by defect; made when asked for, always the same."""

    def __init__(
        self,
        images: ImageCollection,
        kinds: list[DefectKind],
        sizes: list[float],
        contrasts: list[float],
        defects: int,
        seed: int,
    ) -> None:
        self.images = images.with_preprocess(None)
        self.kinds, self.sizes, self.contrasts, self.defects, self.seed = kinds, sizes, contrasts, defects, seed
        # Every image once before any is taken again.
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
        self.order = [order[i % len(order)] for i in range(defects)]

    def __len__(self) -> int:
        return len(self.kinds) * len(self.sizes) * len(self.contrasts) * self.defects

    def place(self, index: int) -> int:
        """Where the image is that a defect was made on."""
        return int(self.order[index % self.defects])

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rest, number = divmod(index, self.defects)
        rest, contrast = divmod(rest, len(self.contrasts))
        kind, size = divmod(rest, len(self.sizes))
        return self.defect(kind, self.sizes[size], self.contrasts[contrast], number).image

    def defect(self, kind: int, size: float, contrast: float, number: int) -> Defect:
        """The made defect, drawn from kind and number alone."""
        place = self.order[number]
        native = self.images.read_native(place)
        # One seed for a kind and number, whatever the size and contrast.
        drawn = torch.Generator().manual_seed((self.seed * 1_000_003 + kind) * 1_000_003 + number)
        image, donor = self.images.read(place), self._donor(number, image=place)
        region = self.images.inside(place)
        inside = None if region is None else torch.from_numpy(region)
        found = with_defect(
            image, self.kinds[kind], size=size, contrast=contrast, donor=donor, inside=inside, generator=drawn
        )
        # A camera's image has whole levels, and so has one with a defect.
        steps = levels_of(native)
        return found if steps is None else Defect(_levelled(found.image, steps), found.mask)

    def _donor(self, number: int, image: int) -> Tensor | None:
        other = self.order[(number + 1) % len(self.order)]
        if other == image:
            return None
        donor = self.images.read(other)
        return donor if donor.shape[0] == self.images.native_shape(image)[0] else None

    def examples(self) -> dict[DefectKind, list[Defect]]:
        """The first defect of each kind in all sizes."""
        most = max(self.contrasts)
        return {kind: [self.defect(k, size, most, 0) for size in self.sizes] for k, kind in enumerate(self.kinds)}


def _levelled(image: Tensor, steps: int) -> Tensor:
    whole = (image * (steps - 1)).round()
    return whole.to(torch.uint8 if steps == 256 else torch.uint16)
