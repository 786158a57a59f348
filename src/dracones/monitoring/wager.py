"""A test martingale: what a bet against uniform p-values has grown to, whichever way they leave uniformity."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]

JUMPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""Rates at which the bet changes its mind: whatever the time of a change, one of them suits it."""

KINDS = ("none", "higher", "lower", "wider", "narrower", "alarms")
"""What each bet wins on: nothing, scores that rise, fall, spread, gather, or more of the most anomalous."""

_SLOPE = 1.5
_TAIL, _TAIL_WEIGHT = 0.05, 4.0
VARIATIONS: Float = np.array([0.0, _SLOPE, _SLOPE, 2 * _SLOPE, 2 * _SLOPE, _TAIL_WEIGHT])
"""Total variation of each bet over [0, 1]: how much it can gain where p-values are not exactly uniform."""


def bets(p_values: ArrayLike) -> Float:
    """What each of `KINDS` pays for p-values, ``[..., 6]``: at least 0, and 1 in the mean of uniform p-values.

    >>> bets([0.0, 0.5, 1.0]).round(2).tolist()[0]
    [1.0, 1.75, 0.25, 1.75, 0.25, 4.8]
    >>> bets(np.linspace(0, 1, 20001)).mean(axis=0).round(3).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    p = np.asarray(p_values, dtype=np.float64)
    rise, spread = _SLOPE * (0.5 - p), _SLOPE * (np.abs(2 * p - 1) - 0.5)
    tail = _TAIL_WEIGHT * ((p <= _TAIL) - _TAIL)
    return 1 + np.stack([np.zeros_like(p), rise, -rise, spread, -spread, tail], axis=-1)


class Wager:
    """Capital of 1, bet on every p-value against uniformity; it stays small where p-values are uniform.

    A mixture over `JUMPS` of simple jumpers: each spreads its capital over `bets` and moves a share (the jump rate) of
    it evenly anew before each bet. As no bet gains in the mean of uniform, independent p-values, capital is a
    martingale, and the probability that it ever reaches c is at most 1/c (Ville's inequality), however long it runs.

    Where p-values are uniform but for a distance `slack` of distribution functions, a bet of total variation V gains
    at most ``1 + V slack`` in the mean, and is divided by that.

    Args:
        streams: shape of many wagers that are updated together; one by default.

    References: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman, "Retrain or not retrain: conformal test
    martingales for change-point detection", 2021 (the composite simple jumper, with one-sided linear bets alone).

    Example:
        >>> wager = Wager()
        >>> for p in [0.1, 0.5, 0.2, 0.4, 0.3] * 10:
        ...     wager.update(p)
        >>> round(float(wager.log_capital), 1), wager.kind
        (10.4, 'higher')
    """

    def __init__(self, streams: tuple[int, ...] = ()) -> None:
        shape = (*streams, len(JUMPS))
        self._log_rows: Float = np.zeros(shape)
        self._shares: Float = np.full((*shape, len(KINDS)), 1 / len(KINDS))
        self._jumps: Float = np.array(JUMPS)[:, None]

    def update(self, p_values: ArrayLike, slack: float = 0.0) -> None:
        """Bet on one p-value of each stream.

        Args:
            p_values: of the shape of `streams`.
            slack: by how much their distribution function may differ from that of uniform ones.
        """
        pays = bets(p_values) / (1 + VARIATIONS * slack)
        shares = ((1 - self._jumps) * self._shares + self._jumps / len(KINDS)) * pays[..., None, :]
        grown = shares.sum(axis=-1)
        # Every row has its own scale, so that no capital leaves the range of numbers.
        self._shares = shares / grown[..., None]
        self._log_rows = self._log_rows + np.log(grown)

    @property
    def log_capital(self) -> Float:
        """Natural logarithm of the capital, of the shape of `streams`."""
        top = self._log_rows.max(axis=-1)
        total: Float = top + np.log(np.exp(self._log_rows - top[..., None]).mean(axis=-1))
        return total

    @property
    def kind(self) -> str:
        """Which bet of one wager holds most of its capital, of those that bet."""
        weights = np.exp(self._log_rows - self._log_rows.max())
        return KINDS[1 + int((weights[:, None] * self._shares).sum(axis=0)[1:].argmax())]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` rebuilds one wager from."""
        return {"log_rows": self._log_rows.tolist(), "shares": self._shares.tolist()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from `to_json`.

        Raises:
            ValueError: of another shape, or not finite.
        """
        wager = cls()
        for name in ("log_rows", "shares"):
            read = np.asarray(state[name], dtype=np.float64)
            wanted = getattr(wager, f"_{name}").shape
            if read.shape != wanted or not np.isfinite(read).all():
                raise ValueError(f"{name}: expected {wanted} finite numbers, got shape {read.shape}")
            setattr(wager, f"_{name}", read)
        return wager
