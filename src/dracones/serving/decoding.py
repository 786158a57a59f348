"""Uploads become arrays beside the event loop, and no more of them at a time than memory was set aside for."""

import asyncio
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from dracones.images.budget import BUDGET
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.reading import decode


class Late(Exception):  # noqa: N818 (reads as what it says)
    """A deadline passed."""


class Decoder:
    """A few threads that decode; they wait while what was decoded before and lives still fills its share of memory.

    Args:
        limits: what one image may cost.
        max_bytes: of all decoded images that live; one more a thread may come on top.
    """

    def __init__(self, limits: Limits, max_bytes: int) -> None:
        self.limits = limits
        self.max_bytes = max_bytes
        self.pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")
        self._living = 0
        # Reentrant: an array may be given back in whatever thread drops it last.
        self._changed = threading.Condition(threading.RLock())

    async def decode(self, data: bytes, name: str, deadline: float) -> NDArray[Any]:
        """``[H, W, C]`` as stored.

        Raises:
            UnreadableImage: what cannot be read.
            Late: no room before the deadline.
        """
        return await asyncio.get_running_loop().run_in_executor(self.pool, self._decode, data, name, deadline)

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _decode(self, data: bytes, name: str, deadline: float) -> NDArray[Any]:
        if len(data) > self.limits.max_file_bytes:
            raise UnreadableImage(name, f"{len(data):,} bytes, more than the limit of {self.limits.max_file_bytes:,}")
        with self._changed:
            if not self._changed.wait_for(lambda: self._living < self.max_bytes, deadline - time.monotonic()):
                raise Late
        if time.monotonic() > deadline:
            raise Late
        with BUDGET.holding():
            image: NDArray[Any] = decode(data, name, self.limits)
        with self._changed:
            self._living += image.nbytes
        weakref.finalize(image, self._gone, image.nbytes).atexit = False
        return image

    def _gone(self, count: int) -> None:
        with self._changed:
            self._living -= count
            self._changed.notify_all()
