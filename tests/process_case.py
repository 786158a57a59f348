"""Work for processes that die, fail or say who they are: importable by each of them."""

import os
import signal
import time
from pathlib import Path


def doubling():
    return lambda item: 2 * item


def naming():
    """Says which process did it; slow enough that each gets some."""

    def work(_):
        time.sleep(0.02)
        return os.getpid()

    return work


def own_names(_):
    time.sleep(0.02)
    return os.getpid()


def failing():
    def work(item):
        if item == 5:
            raise OSError(28, "No space left on device")
        return item

    return work


class _Odd(Exception):  # noqa: N818
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


def odd():
    def work(_):
        raise _Odd("one", "two")

    return work


def refusing():
    raise ValueError("the list has changed")


def stillborn():
    os.kill(os.getpid(), signal.SIGKILL)


def dying(lives):
    """Killed over an item as often as there are files in a folder to take away."""

    def work(item):
        left = sorted(Path(lives).iterdir())
        if left:
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    return work
