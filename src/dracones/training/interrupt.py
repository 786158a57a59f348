"""Ctrl-C at the end of a step, so that what is written then is a whole one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether Ctrl-C was pressed; `asked` is looked at between steps."""

    def __init__(self) -> None:
        self.asked = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take the first Ctrl-C down; the second ends the process at once, as ever."""
        if self.asked:
            signal.default_int_handler(number, frame)
        self.asked = True


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Hold Ctrl-C back until it is asked for.

    Where somebody else handles it, or nobody (a process in the background), or this is not the main thread, which
    alone may change that, nothing is changed.
    """
    noted = Interruption()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield noted
        return
    signal.signal(signal.SIGINT, noted.note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
