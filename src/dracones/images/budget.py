"""What all decoders together may hold in memory at one time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dracones.images.limits import Limits, UnreadableImage


class DecodingBudget:
    """Bytes shared by all threads that decode: an image waits until there is room, one that never fits is refused.

    A thread holds what it took until its image has been treated (`holding`), since the decoded image lives that long.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._changed = threading.Condition()
        self._held = threading.local()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Give back at the end what was taken inside by this thread."""
        outer, self._held.bytes = getattr(self._held, "bytes", None), 0
        try:
            yield
        finally:
            self._give_back(self._held.bytes)
            self._held.bytes = outer

    def take(self, name: str, needed: int, limits: Limits) -> None:
        """Wait for room for one image; outside `holding` the image is only checked.

        Raises:
            UnreadableImage: it needs more than all that is allowed.
        """
        allowed = limits.max_decode_bytes
        if needed > allowed:
            raise UnreadableImage(
                name,
                f"decoding it would hold about {needed / 2**20:,.3g} MiB, more than the {allowed / 2**20:,.3g} MiB of "
                "all decoders together; raise Limits(max_decode_bytes=...) where the memory is there",
            )
        if getattr(self._held, "bytes", None) is None:
            return
        with self._changed:
            # Whoever holds nothing yet may always start alone, whatever others were allowed before.
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + needed <= allowed)
            self._taken += needed
        self._held.bytes += needed

    def _give_back(self, count: int) -> None:
        if count:
            with self._changed:
                self._taken -= count
                self._changed.notify_all()


BUDGET = DecodingBudget()


def decoding_bytes(height: int, width: int, channels: int, depth: int) -> int:
    """Bytes that live while an image is decoded and treated: the decoder's, the array and its copy, the floats.

    Args:
        height: pixels.
        width: pixels.
        channels: as stored.
        depth: bytes of one value, as stored.
    """
    return height * width * (4 + channels * (2 * depth + 4))
