"""Reading images while somebody watches: how many threads, and how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from dracones.training import Progress


def reading_threads() -> int:
    """Threads that decode images ahead: as many as torch computes with, none where that is one."""
    threads = torch.get_num_threads()
    return threads if threads > 1 else 0


@contextmanager
def counting(progress: Progress | None, total: int, what: str) -> Iterator[Callable[[int], None] | None]:
    """A function that counts images of one piece of work on ``progress``; ``None`` where nobody watches."""
    if progress is None:
        yield None
        return
    progress.start(total, what)
    try:
        yield lambda count: progress.advance(count)
    finally:
        progress.finish()
