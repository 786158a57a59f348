"""What has been judged of late, and whether the images have changed: what the page and the measures show of a model."""

from collections import deque
from typing import Any

from dracones.serving.models import Loaded, Scored

_SHOWN = 100


class Watch:
    """The last hundred verdicts of one model.

    Args:
        loaded: the model.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.recent: deque[dict[str, Any]] = deque(maxlen=_SHOWN)
        self.begin(loaded)

    def begin(self, loaded: Loaded) -> None:
        """Start anew with another model, whose scores are on another scale."""
        del loaded
        self.recent.clear()

    def note(self, record: dict[str, Any], scored: Scored, source: str) -> None:
        """Take note of one verdict."""
        del scored, source
        self.recent.append(record)

    def state(self) -> dict[str, Any] | None:
        """What the monitor says; ``None`` where there is none."""
        return None
