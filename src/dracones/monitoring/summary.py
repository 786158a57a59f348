"""What a monitor says of each stream, as rows of a table."""

import math
from typing import Any

from dracones.monitoring.monitor import Monitor
from dracones.monitoring.stream import Stream
from dracones.monitoring.tables import WHOLE, Watched

_WAYS = {
    "higher": "scores are higher",
    "lower": "scores are lower",
    "wider": "scores spread wider",
    "narrower": "scores are more alike",
    "alarms": "more images are among the most anomalous",
}
"""What each kind of change is to a reader; see `KINDS`."""


def summary(monitor: Monitor, watched: Watched) -> list[dict[str, Any]]:
    """One row for all images, then one a source, as plain values.

    ``evidence`` and ``highest`` are powers of ten of the capital. ``since`` and ``alarm_at`` count the images of the
    stream from 1; ``since_path`` is the first image after ``since``, and ``alarm_path`` the one that raised the alarm:
    none where it was seen in an earlier run.
    """
    return [
        _row(label, monitor.stream(name), watched.paths.get(label, []))
        for label, name in ((WHOLE, None), *((source, source) for source in monitor.sources))
    ]


def _row(label: str, stream: Stream, paths: list[str]) -> dict[str, Any]:
    earlier = stream.seen - len(paths)  # names of earlier runs are not kept

    def path(place: int | None) -> str | None:
        return paths[place - earlier] if place is not None and 0 <= place - earlier < len(paths) else None

    return {
        "source": label,
        "images": stream.seen,
        "evidence": stream.log_martingale / math.log(10),
        "highest": stream.highest / math.log(10),
        "changed": stream.alarm_at is not None,
        "change": None if stream.change is None else _WAYS[stream.change],
        "since": stream.since,
        "since_path": path(stream.since),
        "alarm_at": stream.alarm_at,
        "alarm_path": path(None if stream.alarm_at is None else stream.alarm_at - 1),
    }
