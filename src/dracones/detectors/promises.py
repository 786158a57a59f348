"""What became of each group's promise on normal images."""

import numpy as np
from numpy.typing import NDArray

from dracones.calibration import Groups, Promise, judge_promise
from dracones.calibration.prediction import Prediction


def promises_by_group(
    groups: Groups,
    normal: Prediction,
    fresh: NDArray[np.bool_],
    false_alarm_rate: float,
    confidence: float | None,
    coverage: float,
) -> tuple[dict[str, Promise], list[str]]:
    """Each group's promise tested on its own normal images, and what is to be said of groups that had none.

    Args:
        groups: the calibration.
        normal: prediction on normal images, with their groups.
        fresh: which of them set no threshold.
        false_alarm_rate: promised in each group.
        confidence: as given to the calibration.
        coverage: of the intervals.
    """
    of = np.asarray(normal.groups, dtype=object)
    found = {}
    for name, calibration in groups.calibrations.items():
        scores = normal.scores[(of == name) & fresh]
        if len(scores):
            found[name] = judge_promise(calibration, scores, false_alarm_rate, confidence, coverage=coverage)
    untested = [name for name in groups.names if name not in found]
    notes = [f"No normal image tests the promise of {', '.join(untested)}."] if untested else []
    return found, notes
