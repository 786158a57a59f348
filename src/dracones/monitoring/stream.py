"""One stream of scores, watched: its capital, its alarm, since when, and which way."""

import hashlib
import math
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dracones.monitoring.ranking import Placed
from dracones.monitoring.wager import Wager

CURVE = 500
"""Values of the curve that are kept."""


class Stream:
    """The capital that a `Wager` makes of a stream's p-values; an alarm stays until the stream is begun anew.

    Attributes:
        seen: scores so far.
        curve: log capital after each of the last `CURVE` scores.
        highest: the highest log capital so far.
        alarm_at: at which score (from 1) the threshold was reached first; ``None``: never.
        since: after which score the capital that raised the alarm began to grow: an estimate of when the images
            changed; ``None`` without an alarm.
        change: which bet had won when the alarm was raised, one of `KINDS`; ``None`` without an alarm.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.wager = Wager()
        self.seen = 0
        self.curve: deque[float] = deque(maxlen=CURVE)
        self.highest = 0.0
        self.alarm_at: int | None = None
        self.since: int | None = None
        self.change: str | None = None
        self._lowest, self._lowest_at = 0.0, 0

    @property
    def log_martingale(self) -> float:
        """Natural logarithm of the capital; 0 before the first score."""
        return self.curve[-1] if self.curve else 0.0

    def bet(self, placed: Placed) -> None:
        """Take one p-value."""
        self.wager.update(*placed)
        self.seen += 1
        value = float(self.wager.log_capital)
        self.curve.append(value)
        self.highest = max(self.highest, value)
        if value <= self._lowest:
            self._lowest, self._lowest_at = value, self.seen
        if self.alarm_at is None and value >= self.threshold:
            self.alarm_at, self.since, self.change = self.seen, self._lowest_at, self.wager.kind

    def state(self) -> dict[str, Any]:
        """What there is to show, as plain values."""
        return {
            "seen": self.seen,
            "log_martingale": self.log_martingale,
            "highest": self.highest,
            "alarm": self.alarm_at is not None,
            "alarm_at": self.alarm_at,
            "since": self.since,
            "change": self.change,
            "threshold": self.threshold,
            "curve": list(self.curve),
        }

    def to_json(self) -> dict[str, Any]:
        """What `from_json` rebuilds this from."""
        return {**self.state(), "lowest": [self._lowest, self._lowest_at], "wager": self.wager.to_json()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "Stream":
        """Rebuild from `to_json`."""
        stream = cls(float(state["threshold"]))
        stream.wager = Wager.from_json(state["wager"])
        stream.seen = int(state["seen"])
        stream.curve.extend(float(value) for value in state["curve"])
        stream.highest = float(state["highest"])
        stream.alarm_at, stream.since, stream.change = state["alarm_at"], state["since"], state["change"]
        stream._lowest, stream._lowest_at = float(state["lowest"][0]), int(state["lowest"][1])
        return stream


def coin(seed: int, name: str, count: int) -> float:
    """A number in (0, 1] that follows from these alone: nothing of it has to be saved.

    >>> 0 < coin(0, "camera 1", 5) <= 1, coin(0, "camera 1", 5) == coin(0, "camera 1", 5)
    (True, True)
    """
    digest = hashlib.blake2b(f"{seed}\0{name}\0{count}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + 1) / 2**64


def ascending(scores: Sequence[float] | np.ndarray) -> "array[float]":
    """Finite scores, ordered, eight bytes each."""
    return array("d", np.sort(np.asarray(scores, dtype=np.float64)).tolist())


def finite(score: float) -> float:
    """The score, if it has a place in an order.

    Raises:
        ValueError: NaN or infinite.
    """
    value = float(score)
    if not math.isfinite(value):
        raise ValueError(f"score: expected a finite number, got {value}; an image without a score cannot be watched")
    return value
