"""One stream of scores, watched: its capital, its alarm, since when, and which way."""

import hashlib
import math
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dracones.monitoring.ranking import Placed
from dracones.monitoring.wager import KINDS, Wager, bets

CURVE = 500
"""Values of the curve that are kept."""

_WALKS = ("gains", "lowest", "lowest_at")


class Stream:
    """The capital that a `Wager` makes of a stream's p-values; an alarm stays until the stream is begun anew.

    Attributes:
        seen: scores so far.
        curve: log capital after each of the last `CURVE` scores.
        highest: the highest log capital so far.
        alarm_at: at which score (from 1) the threshold was reached first; ``None``: never.
        since: after which score the bet that won began to gain: the likeliest time of the change, if that bet is taken
            for the law of changed images (the maximum-likelihood change point); ``None`` without an alarm.
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
        # Log gains of each bet alone, where they were lowest, and when that was.
        self._gains, self._lowest = np.zeros(len(KINDS)), np.zeros(len(KINDS))
        self._lowest_at = np.zeros(len(KINDS), dtype=np.int64)

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
        self._gains += np.log(bets(placed.p_value))
        lower = self._gains <= self._lowest
        self._lowest[lower], self._lowest_at[lower] = self._gains[lower], self.seen
        if self.alarm_at is None and value >= self.threshold:
            self.alarm_at, self.change = self.seen, self.wager.kind
            self.since = int(self._lowest_at[KINDS.index(self.change)])

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
        return {
            **self.state(),
            **{name: getattr(self, f"_{name}").tolist() for name in _WALKS},
            "wager": self.wager.to_json(),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "Stream":
        """Rebuild from `to_json`."""
        stream = cls(float(state["threshold"]))
        stream.wager = Wager.from_json(state["wager"])
        stream.seen = int(state["seen"])
        stream.curve.extend(float(value) for value in state["curve"])
        stream.highest = float(state["highest"])
        stream.alarm_at, stream.since, stream.change = state["alarm_at"], state["since"], state["change"]
        for name in _WALKS:
            walk = getattr(stream, f"_{name}")
            walk[:] = np.asarray(state[name], dtype=walk.dtype)
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
