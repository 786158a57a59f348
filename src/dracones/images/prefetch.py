"""Work done ahead by threads, handed out in order, in bounded memory."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Iterator[Result]:
    """`work(item)` for every item, in the items' order; at most `ahead` results wait at any time.

    With `workers=0` the caller's own thread does the work. Threads suffice: decoding and resizing release the
    interpreter lock.

    Example:
        >>> list(in_order(abs, [-1, 2, -3], workers=2, ahead=2))
        [1, 2, 3]
    """
    if workers == 0:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        waiting.extend(pool.submit(work, item) for item in islice(source, max(ahead, workers)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
    finally:
        # Reached too when the caller stops half-way: what has not begun is dropped.
        pool.shutdown(wait=True, cancel_futures=True)


def reading_threads() -> int:
    """Threads that decode images ahead: as many as torch computes with, none where that is one.

    Where torch is not loaded they are as many as it would take: ``OMP_NUM_THREADS``, or all cores.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        threads = int(torch.get_num_threads())
    else:
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return threads if threads > 1 else 0


def runs(count: int, size: int, start: int = 0) -> Iterator[range]:
    """The places from `start` to `count` in runs of `size`.

    Example:
        >>> list(runs(5, 2))
        [range(0, 2), range(2, 4), range(4, 5)]
    """
    return (range(first, min(first + size, count)) for first in range(start, count, size))
