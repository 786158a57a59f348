"""Heat maps against masks: one sorted state for pixel AUROC, AUPRO, F1-max and the rest, fed map by map."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dracones.metrics.coverage import Area, Coverage, areas_inside, saturating_shares
from dracones.metrics.growing import Growing
from dracones.metrics.inputs import Bool, Float
from dracones.metrics.intervals import REPLICATES, Estimate
from dracones.metrics.map_pairs import pairs
from dracones.metrics.pixel_counts import PixelCounts, count_pixels, steps_of_anomalous, steps_of_normal
from dracones.metrics.pixel_intervals import (
    SATURATED_MAX_FPR,
    Tables,
    common_thresholds,
    estimates,
    image_rows,
)
from dracones.metrics.ranking import fits_float32
from dracones.metrics.regions import Connectivity, label_regions
from dracones.metrics.staircase import OperatingPoint, Positive, Staircase, Steps, check_positive, needed_count


class ProCurve(NamedTuple):
    """Points by falling threshold from (0, 0); a pixel is called anomalous when its score is >= threshold."""

    false_positive_rate: NDArray[np.float64]
    per_region_overlap: NDArray[np.float64]
    threshold: Float


class PixelRanking(Staircase):
    """Metrics of heat maps, exact over all pixels, without all maps in memory at once.

    Feed it with `add`, then read: `auroc`, `aupr`, `f1_max`, `detection_error`, `fpr_at_tpr`, `aupro`, `pro_curve`. It
    keeps 4 bytes a normal and 8 an anomalous pixel (8 and 12 for float64 scores that float32 would round; 4 more where
    saturating areas are given) and, while it
    is read, a sorted copy of the normal ones. The sort is of plain floats; the anomalous pixels, which are few, are
    then looked up in it, because between two of their scores no curve bends.

    Args:
        connectivity: 8 joins pixels that touch at a corner into one region, as MVTec AD's own evaluation does; or 4.

    Example:
        >>> ranking = PixelRanking()
        >>> ranking.add([[0.1, 0.9], [0.2, 0.3]], [[0, 1], [0, 0]])
        >>> ranking.add([[0.6, 0.4], [0.2, 0.5]], [[0, 0], [0, 1]])
        >>> round(ranking.auroc(), 4), round(ranking.aupro(), 4)
        (0.9167, 0.7222)
    """

    def __init__(self, connectivity: Connectivity = 8) -> None:
        label_regions(np.zeros((1, 1), dtype=np.bool_), connectivity)
        self._connectivity = connectivity
        self._normal = Growing(np.float32)
        self._anomalous = Growing(np.float32)
        self._regions = Coverage()
        self._areas = Coverage()
        self._images: list[tuple[int, int]] = []  # normal pixels, anomalous pixels
        self._counts: PixelCounts | None = None

    @property
    def normal(self) -> int:  # type: ignore[override]
        """Number of normal pixels."""
        return len(self._normal)

    @property
    def anomalous(self) -> int:  # type: ignore[override]
        """Number of anomalous pixels."""
        return len(self._anomalous)

    @property
    def regions(self) -> int:
        """Number of connected anomalous regions."""
        return self._regions.regions

    @property
    def areas(self) -> int:
        """Number of defects whose saturation is known."""
        return self._areas.regions

    @property
    def saturates(self) -> bool:
        """Whether the areas of every anomalous pixel so far are known, as `auspro` needs."""
        return 0 < len(self._areas) == self.anomalous

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __repr__(self) -> str:
        return (
            f"PixelRanking({len(self)} images, {self.normal} normal and {self.anomalous} anomalous pixels, "
            f"{self.regions} regions)"
        )

    def add(
        self,
        maps: Any,
        masks: Any,
        insides: Iterable[Any] | None = None,
        areas: Iterable[Sequence[Area] | None] | None = None,
    ) -> None:
        """Take in one map `[H, W]`, a batch `[B, H, W]`, or a sequence of maps of any sizes, with their masks.

        Args:
            maps: scores, larger = more anomalous; arrays or tensors.
            masks: the same shapes; booleans, 0 and 1, or the 0 and 255 of mask files; nonzero = anomalous.
            insides: for a sequence of maps, where each of them counts, `[H, W]` bool, or None for everywhere.
            areas: for a sequence of maps, the defects of each: their pixels `[H, W]`, which together are the mask and
                may overlap, and how many of them it is enough to mark; `auspro` asks for them.

        Raises:
            ValueError: shapes that differ, NaN scores (with their count), masks of other values; the maps before the
                refused one have been taken in.
        """
        self._counts = None
        counted = repeat(None) if insides is None else insides
        defects = repeat(None) if areas is None else areas
        for (scores, mask), inside, known in zip(pairs(maps, masks), counted, defects, strict=False):
            self._add_one(scores, mask, inside, known)

    def _add_one(self, scores: Float, mask: Bool, inside: Bool | None, areas: Sequence[Area] | None) -> None:
        if scores.shape != mask.shape or scores.ndim != 2:
            raise ValueError(
                f"image {len(self)}: expected map and mask of one shape [H, W], got {scores.shape} and {mask.shape}"
            )
        if scores.dtype == np.float64 and fits_float32(scores):
            scores = scores.astype(np.float32)
        normal = ~mask
        if inside is not None:
            mask, normal = mask & inside, normal & inside
        regions, count = label_regions(mask, self._connectivity)
        marked = scores[mask]
        if areas is not None and len(marked):
            defects = areas_inside(areas, mask, len(self))
            self._areas.add_areas(saturating_shares(marked, defects), len(defects))
        self._regions.add_regions(regions[mask], count)
        self._anomalous.append(marked)
        self._normal.append(scores[normal])
        self._images.append((int(normal.sum()), len(marked)))

    def counts(self) -> PixelCounts:
        """The sorted state; made on first use after an `add`.

        Raises:
            ValueError: no anomalous, or no normal pixel so far.
        """
        if self._counts is None:
            if not self.anomalous or not self.normal:
                only = "normal" if not self.anomalous else "anomalous"
                raise ValueError(
                    f"masks: all {self.normal + self.anomalous} pixels of {len(self)} images are {only}; a metric of "
                    "order needs both classes"
                )
            self._counts = count_pixels(
                self._normal.values, self._anomalous.values, self._regions, self._areas if self.saturates else None
            )
        return self._counts

    def steps(self, positive: Positive) -> Iterator[Steps]:
        """All steps of the staircase in blocks, by ascending score; `positive` names the class to be found."""
        check_positive(positive)
        counts = self.counts()
        return steps_of_normal(counts) if positive == "in" else steps_of_anomalous(counts)

    def score_at(self, place: int) -> float:
        """The distinct score of an anomalous pixel at this place, ascending."""
        return float(self.counts().levels[place])

    def operating_point(self, true_positive_rate: float, positive: Positive) -> OperatingPoint:
        """The strictest threshold that still finds at least `true_positive_rate` of the positive class."""
        check_positive(positive)
        counts = self.counts()
        needed = needed_count(true_positive_rate, self.normal if positive == "in" else self.anomalous)
        if positive == "in":
            threshold = counts.normal[needed - 1]
            found = int(np.searchsorted(counts.normal, threshold, side="right"))
            place = int(np.searchsorted(counts.levels, threshold, side="right"))
            alarms = int(counts.anomalous_up_to[place - 1]) if place else 0
            return OperatingPoint(alarms / self.anomalous, found / self.normal, float(threshold))
        place = int(np.searchsorted(counts.anomalous_below, self.anomalous - needed, side="right")) - 1
        found = self.anomalous - int(counts.anomalous_below[place])
        alarms = self.normal - int(counts.normal_below[place])
        return OperatingPoint(alarms / self.normal, found / self.anomalous, self.score_at(place))

    def aupro(self, max_fpr: float = 0.3) -> float:
        """Area under the per-region-overlap curve up to a false positive rate, divided by that rate: in [0, 1].

        Per-region overlap at a threshold: the share of a connected anomalous region at or above it, averaged over
        all regions of all images, so that small regions count as much as large. The false positive rate is
        over all normal pixels. Points are joined by lines, as in the ROC curve, and cut exactly at `max_fpr`.

        Reference: Bergmann, Fauser, Sattlegger, Steger, "Uninformed students: student-teacher anomaly detection with
        discriminative latent embeddings", 2020, section 4.1.
        """
        return self._area(self.counts().overlap, max_fpr)

    def auspro(self, max_fpr: float = SATURATED_MAX_FPR) -> float:
        """As `aupro`, over defects of which it is enough to mark as much as saturates them; in [0, 1].

        A missing part has no pixels that would be wrong one by one: marking any sufficient share of where it should be
        has found it. Each defect of area A counts min(marked pixels of A / s, 1), with its saturation s.

        Raises:
            ValueError: anomalous pixels whose areas were not given to `add`.

        Reference: Bergmann, Batzner, Fauser, Sattlegger, Steger, "Beyond dents and scratches: logical constraints in
        unsupervised anomaly detection and localization", 2022, section 4.2.
        """
        overlap = self.counts().saturated
        if overlap is None:
            raise ValueError(
                f"saturated overlap: the areas of {len(self._areas)} of {self.anomalous} anomalous pixels are known; "
                "give `add` those of every image (areas=...)"
            )
        return self._area(overlap, max_fpr)

    def _area(self, covered: NDArray[np.float64], max_fpr: float) -> float:
        if not 0 < max_fpr <= 1:
            raise ValueError(f"max_fpr: expected a rate in (0, 1], got {max_fpr}")
        counts, limit = self.counts(), max_fpr * self.normal
        # Levels from the highest down to the first whose false positives reach the limit.
        first = max(0, int(np.searchsorted(counts.normal_below, self.normal - limit, side="right")) - 1)
        alarms, overlap = self._points(covered, slice(first, None))
        alarms, overlap = np.append(alarms, self.normal), np.append(overlap, overlap[-1])
        cut = int(np.searchsorted(alarms, limit, side="right"))
        end = np.interp(limit, alarms[cut - 1 : cut + 1], overlap[cut - 1 : cut + 1])
        area = np.trapezoid(np.append(overlap[:cut], end), np.append(alarms[:cut], limit))
        return float(area) / limit

    def pro_curve(self) -> ProCurve:
        """Per-region overlap over the false positive rate, for figures; points on straight pieces are left out."""
        alarms, overlap = self._points(self.counts().overlap, slice(None))
        levels = np.repeat(self.counts().levels[::-1], 2)
        # Of a pair, the first point ends the horizontal piece: its threshold is just above the level.
        thresholds = np.append(np.inf, np.where(np.arange(len(levels)) % 2, levels, np.nextafter(levels, np.inf)))
        kept = np.append(True, (np.diff(alarms) > 0) | (np.diff(overlap) > 0))
        return ProCurve(
            np.append(alarms[kept] / self.normal, 1.0),
            np.append(overlap[kept], 1.0),
            np.append(thresholds[kept], -np.inf),
        )

    def _points(self, covered: NDArray[np.float64], levels: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners by falling threshold: along the normal pixels between two levels, then up (and on, where tied)."""
        counts = self.counts()
        below, up_to = counts.normal_below[levels][::-1], counts.normal_up_to[levels][::-1]
        overlap = covered[levels][::-1]
        alarms = np.zeros(2 * len(overlap) + 1)
        alarms[1::2], alarms[2::2] = self.normal - up_to, self.normal - below
        heights = np.zeros_like(alarms)
        heights[3::2], heights[2::2] = overlap[:-1], overlap
        return alarms, heights

    def intervals(
        self, *, max_fpr: float = 0.3, confidence: float = 0.95, seed: int = 0, replicates: int = REPLICATES
    ) -> dict[str, Estimate]:
        """All metrics with bootstrap intervals over images (not pixels, which are no independent witnesses).

        `auroc`, `aupr_in`, `aupr_out`, `fpr_at_tpr95` (normal pixels as the positive class), `detection_error`,
        `f1_max`, `aupro` (up to `max_fpr`), and where it `saturates`, `auspro` (up to .05). With fewer than two
        anomalous images every interval is [0, 1].
        """
        values = {
            "auroc": self.auroc(),
            "aupr_in": self.aupr("in"),
            "aupr_out": self.aupr("out"),
            "fpr_at_tpr95": self.fpr_at_tpr(0.95, positive="in"),
            "detection_error": self.detection_error(),
            "f1_max": self.f1_max().value,
            "aupro": self.aupro(max_fpr),
        }
        if self.saturates:
            values["auspro"] = self.auspro()
        return estimates(
            self._tables(), values, max_fpr=max_fpr, tpr=0.95, confidence=confidence, seed=seed, replicates=replicates
        )

    def _tables(self) -> Tables:
        thresholds = common_thresholds(self.counts(), len(self))
        by_image = [image_rows(*scores, thresholds) for scores in self._of_each_image()]
        return Tables(*(np.array(table) for table in zip(*by_image, strict=True)))

    def _of_each_image(self) -> Iterator[tuple[Float, Float, list[NDArray[np.float64]]]]:
        """Scores of normal and of anomalous pixels, and what the latter add to overlaps."""
        kinds = [self._regions, self._areas] if self.saturates else [self._regions]
        tables = [kind.table for kind in kinds]
        normal_end = anomalous_end = 0
        for normal, anomalous in self._images:
            odd = slice(anomalous_end, anomalous_end := anomalous_end + anomalous)
            shares = [table[kind.places.values[odd]] for kind, table in zip(kinds, tables, strict=True)]
            yield (
                self._normal.values[normal_end : (normal_end := normal_end + normal)],
                self._anomalous.values[odd],
                shares,
            )
