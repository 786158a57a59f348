"""How many requests the house can hold and still answer in time, found out while it answers."""

_FIRST = 8.0
_LESS = 0.8
_LEAST = 2.0


class Throttle:
    """A bound on requests in the house that follows what the machine gives, as TCP's window follows a line.

    It grows by one a timely answer until the first late one; then by one a round of answers, and shrinks by a fifth at
    a late one, once a round at most. So neither a slower model nor a machine that others use makes all answers late.

    Args:
        most: never more than this.
        patience: seconds; an answer that took longer is late.

    Example:
        >>> throttle = Throttle(64, patience=1.0)
        >>> for second in range(20):
        ...     throttle.learn(0.1, now=float(second))
        >>> throttle.allowed
        28
        >>> throttle.learn(1.5, now=20.0); throttle.allowed
        22
    """

    def __init__(self, most: int, patience: float) -> None:
        self.most, self.patience = float(most), patience
        self._allowed = min(_FIRST, self.most)
        self._met_a_limit = False
        self._shrunk = float("-inf")

    @property
    def allowed(self) -> int:
        """Requests that may be in the house."""
        return int(self._allowed)

    def learn(self, seconds: float, now: float) -> None:
        """Take note of one answer, whether good or too late.

        Args:
            seconds: from the whole body to the answer.
            now: by `time.monotonic`.
        """
        if seconds <= self.patience:
            self._allowed = min(self.most, self._allowed + (1 / self._allowed if self._met_a_limit else 1))
        elif now - self._shrunk > seconds:  # those that were let in before the last time say nothing new
            self._shrunk, self._met_a_limit = now, True
            self._allowed = max(min(_LEAST, self.most), _LESS * self._allowed)
