"""How long work tells its watcher that it is alive: silent by default, a bar on standard error on demand."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Told of the progress of one piece of work.

    `numbers` that the training loop sends: `loss`, `validation_loss`, `images_per_second`, `seconds_left`,
    `skipped_steps`.
    """

    def start(self, total: int | None, what: str) -> None:
        """Work of `total` units begins; `None` where its length is not known."""

    def advance(self, n: int = 1, **numbers: float) -> None:
        """`n` more units are done."""

    def finish(self) -> None:
        """The work is over, well or not."""


class Silent:
    """The watcher that says nothing."""

    def start(self, total: int | None, what: str) -> None:
        """Nothing."""

    def advance(self, n: int = 1, **numbers: float) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


class RichProgress:
    """A bar with throughput and time left on standard error; plain lines, far apart, where that is no terminal.

    Updates of the screen are spaced by `interval` seconds, so that a step costs about a microsecond however short it
    is. A piece of work may follow another: `start` after `finish` opens a new bar.
    """

    def __init__(self, *, interval: float = 0.1, lines_every: float = 10.0) -> None:
        self._interval = interval
        self._lines_every = lines_every
        self._bar: Any = None
        self._console: Any = None

    def start(self, total: int | None, what: str) -> None:
        """Open the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self.finish()
        self._what, self._total, self._done = what, total, 0
        self._numbers: dict[str, float] = {}
        self._begun = self._shown = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._console = Console(stderr=True)
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(what, total=total, numbers="")
            self._bar.start()

    def advance(self, n: int = 1, **numbers: float) -> None:
        """Count, and draw if the last drawing is old enough."""
        if self._console is None:
            return
        self._done += n
        self._numbers.update(numbers)
        now = time.monotonic()
        # The first report may cover work done before the run was taken up; speed is measured from there on.
        if self._first is None:
            self._first = (now, self._done)
        if now - self._shown >= (self._interval if self._bar is not None else self._lines_every):
            self._shown = now
            self._draw(now)

    def finish(self) -> None:
        """Draw the last state and close the bar."""
        if self._console is None:
            return
        now = time.monotonic()
        if self._bar is not None:
            self._draw(now)
            self._bar.stop()
        elif now - self._begun >= 2.0:
            self._draw(now)
        self._bar = self._console = None

    def _draw(self, now: float) -> None:
        words = describe(self._numbers, self._seconds_left(now))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, numbers=words)
        else:
            place = f"{self._done}" if self._total is None else f"{self._done}/{self._total}"
            self._console.print(f"{self._what} {place} {words}", highlight=False, markup=False, soft_wrap=True)

    def _seconds_left(self, now: float) -> float | None:
        if "seconds_left" in self._numbers:
            return self._numbers["seconds_left"]
        if self._total is None or self._first is None or self._done <= self._first[1]:
            return None
        return (self._total - self._done) * (now - self._first[0]) / (self._done - self._first[1])


def describe(numbers: dict[str, float], seconds_left: float | None) -> str:
    """Numbers in a few words.

    Example:
        >>> describe({"loss": 3.21, "images_per_second": 1234.5}, 75.0)
        'loss 3.21 · 1,234 images/s · 1:15 left'
    """
    words = []
    for name, value in numbers.items():
        if name == "images_per_second":
            words.append(f"{value:,.0f} images/s" if value >= 10 else f"{value:.2g} images/s")
        elif name == "skipped_steps":
            words.extend([f"{value:.0f} steps skipped"] if value else [])
        elif name != "seconds_left":
            words.append(f"{name.replace('_', ' ')} {value:.4g}")
    if seconds_left is not None:
        minutes, seconds = divmod(round(max(seconds_left, 0.0)), 60)
        hours, minutes = divmod(minutes, 60)
        words.append(f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left")
    return " · ".join(words)


@contextmanager
def counting(progress: Progress | None, total: int, what: str) -> Iterator[Callable[[int], None] | None]:
    """A function that counts units of one piece of work on ``progress``; ``None`` where nobody watches."""
    if progress is None:
        yield None
        return
    progress.start(total, what)
    try:
        yield lambda count: progress.advance(count)
    finally:
        progress.finish()
