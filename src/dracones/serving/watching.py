"""What has been judged of late, and whether the images have changed: what the page and the measures show of a model."""

import logging
import math
from collections import OrderedDict, deque
from typing import Any

from dracones.monitoring import Monitor
from dracones.serving.measures import Measures
from dracones.serving.models import Loaded, Scored

log = logging.getLogger("dracones.serving")
_SHOWN = 100
_REMEMBERED = 10_000
_SOURCES = 100


class Watch:
    """The last hundred verdicts of one model, and the monitor of its scores.

    An image that is sent again (a retry, a second look at its heat map) counts once for the monitor: repeats are no
    news of the line, and would look like a change.

    Args:
        name: of the model.
        loaded: the model.
        measures: are told what the monitor says.
    """

    def __init__(self, name: str, loaded: Loaded, measures: Measures) -> None:
        self.name = name
        self._measures = measures
        self.begin(loaded)

    def begin(self, loaded: Loaded) -> None:
        """Start anew with another model, whose scores are on another scale."""
        self.recent: deque[dict[str, Any]] = deque(maxlen=_SHOWN)
        self._judge_of = loaded.sha256
        self._seen: OrderedDict[str, None] = OrderedDict()
        compared = loaded.compared_with
        self._monitor = Monitor(compared, most_sources=_SOURCES) if compared else None
        self._grouped = loaded.groups is not None
        self._tell("")

    def note(self, record: dict[str, Any], scored: Scored, source: str) -> None:
        """Take note of one verdict; one of a model that has been replaced meanwhile is not."""
        if scored.loaded.sha256 != self._judge_of:
            return
        self.recent.append(record)
        image = record["image"]
        if self._monitor is None or image in self._seen or not math.isfinite(scored.verdict.score):
            return
        self._seen[image] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        if not self._grouped and source not in self._monitor.sources and len(self._monitor.sources) >= _SOURCES:
            source = ""  # one more name than are kept apart: it counts for the whole
        if self._monitor.update(scored.verdict.score, source):
            log.warning("%s: the images have changed since the calibration (source %r)", self.name, source)
        self._tell("")
        if source:
            self._tell(source)

    def state(self) -> dict[str, Any] | None:
        """What the monitor says; ``None`` where there is no calibration to compare with."""
        if self._monitor is None:
            return None
        state = self._monitor.state()
        sources = {name: {**each, "curve": []} for name, each in state["sources"].items()}  # one curve is drawn
        return {**state, "sources": sources}

    def _tell(self, source: str) -> None:
        if self._monitor is not None:
            stream = self._monitor.stream(source or None)
            self._measures.change(self.name, source, stream.state())
