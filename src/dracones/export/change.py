"""What a lower precision changes, measured on images."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dracones.calibration import Verdict
from dracones.images import ImageCollection
from dracones.runtime import Change, ExportedDetector
from dracones.runtime.agreement import map_difference

LEAST = 8
"""Images that a change is measured on at least."""

_TINY = float(np.finfo(np.float32).tiny)


def change_of(line: ExportedDetector, lower: ExportedDetector, images: ImageCollection) -> Change:
    """How far a file of lower precision is from the same in float32, over images that both take.

    Raises:
        ValueError: fewer than `LEAST` images could be scored.
    """
    pairs, heat = [], 0.0
    for before, after in _both(line, lower, images):
        if before.map is not None and after.map is not None:
            heat = max(heat, map_difference(after.map[None], before.map[None]))
        pairs.append((replace(before, map=None), replace(after, map=None)))
    refuse_few(len(pairs), images.name_of_source)
    change = replace(_of_scores(line, pairs), map_largest=heat if line.gives_maps else None)
    return change if line.threshold is None else _with_verdicts(change, line, pairs)


def refuse_few(count: int, source: str) -> None:
    """Raise `ValueError` where a change would be measured on fewer than `LEAST` images."""
    if count < LEAST:
        raise ValueError(
            f"a change is measured on {LEAST} images at least, and {count} of {source} are left for it (int8 sets its "
            "ranges by every second image and measures on the others)"
        )


def _of_scores(line: ExportedDetector, pairs: list[tuple[Verdict, Verdict]]) -> Change:
    calibration = line.calibration.scores
    spread = float(np.std(calibration)) if len(calibration) > 1 else 0.0
    first, second = np.array([(before.score, after.score) for before, after in pairs]).T
    off = np.abs(second - first)
    relative = off / np.maximum(np.abs(first), max(spread, _TINY))
    noise = np.sqrt((off**2).mean()) / max(float(np.std(first)), _TINY)
    return Change(len(pairs), float(np.median(relative)), float(relative.max()), float(noise))


def _with_verdicts(change: Change, line: ExportedDetector, pairs: list[tuple[Verdict, Verdict]]) -> Change:
    first, second = np.array([(before.is_anomaly, after.is_anomaly) for before, after in pairs], dtype=np.bool_).T
    return replace(
        change,
        verdicts=int((first != second).sum()),
        alarms_before=int(first.sum()),
        alarms_after=int(second.sum()),
        rate=line.false_alarm_rate,
    )


def _both(
    line: ExportedDetector, lower: ExportedDetector, images: ImageCollection
) -> Iterator[tuple[Verdict, Verdict]]:
    """Both verdicts on each image that the graph takes."""
    blocks = (each.stream(images, batch_size=8, maps=True) for each in (line, lower))
    for pair in zip(*blocks, strict=True):
        for before, after in zip(*pair, strict=True):
            if isinstance(before, Verdict) and isinstance(after, Verdict):
                yield before, after
