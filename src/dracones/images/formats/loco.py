"""MVTec LOCO's defects: several masks an image, and how much of each it is enough to mark.

    breakfast_box/defects_config.json
    breakfast_box/ground_truth/logical_anomalies/000/000.png   .../000/001.png

Reference: P. Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization", 2022, section 4.2.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from dracones.images.areas import DefectArea
from dracones.images.masks import MaskedFiles, mask_labels

CONFIG = "defects_config.json"


class Saturation(NamedTuple):
    """How much of a kind of defect it is enough to mark."""

    kind: str
    threshold: float
    relative: bool

    def pixels(self, area: int) -> float:
        """Of a defect of so many pixels: a share of them, or a number whatever its size (a smaller one takes all)."""
        return self.threshold * area if self.relative else self.threshold


def read_saturations(path: Path) -> dict[int, Saturation]:
    """The value by which masks mark a kind of defect → its saturation.

    Raises:
        ValueError: no JSON, or an entry without what it takes.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    found: dict[int, Saturation] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        try:
            saturation = Saturation(
                str(entry["defect_name"]), float(entry["saturation_threshold"]), bool(entry["relative_saturation"])
            )
            value = int(entry["pixel_value"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, entry {number}: expected defect_name, pixel_value, saturation_threshold and "
                f"relative_saturation, got {entry!r} ({error})"
            ) from None
        if not saturation.threshold > 0 or (saturation.relative and saturation.threshold > 1):
            raise ValueError(
                f"{path}, entry {number}: a saturation threshold is a share in (0, 1] or a positive number of pixels, "
                f"got {saturation.threshold:g} ({'relative' if saturation.relative else 'pixels'})"
            )
        found[value] = saturation
    return found


class LocoFiles(MaskedFiles):
    """Image files with several masks each, every one of which is one defect of a kind that its gray value names."""

    saturations: dict[int, Saturation]
    """By the gray value that marks a kind of defect."""

    @override
    def areas(self, index: int) -> list[DefectArea] | None:
        """The image's defects with what saturates each; None where an anomalous image has no mask.

        Raises:
            ValueError: a mask marks with no value, with several, or with one that the configuration does not name.
        """
        if not self.has_masks or self.mask(index) is None:
            return None
        return [self._area(path) for path in self.masks[index]]

    def _area(self, path: Path) -> DefectArea:
        labels = mask_labels(path, self.limits)
        values = np.unique(labels[labels > 0])
        if len(values) != 1 or int(values[0]) not in self.saturations:
            known = ", ".join(f"{value} ({each.kind})" for value, each in sorted(self.saturations.items()))
            found = ", ".join(str(int(value)) for value in values) or "nothing"
            raise ValueError(f"mask {path} marks with {found}; expected one of the values of {CONFIG}: {known}")
        pixels = labels > 0
        return DefectArea(pixels, self.saturations[int(values[0])].pixels(int(pixels.sum())))
