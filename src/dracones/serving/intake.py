"""Who is let in: a bounded number of requests, each with a deadline, before a byte of a body is read."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from dracones.images.names import shown
from dracones.serving.measures import Measures
from dracones.serving.models import Served
from dracones.serving.refusal import Refused
from dracones.serving.settings import Settings
from dracones.serving.throttle import Throttle

_HEADROOM = 0.8
"""Share of the deadline that may be spent waiting, by estimate."""
_TIMELY = 0.3
"""Share of the deadline within which answers should come; later ones make the house smaller."""

_NEWS = 0.05
_LONGEST_AWAY = 30

# curl says of any body that it is a form.
_RAW = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})


class Upload(NamedTuple):
    """One image as it came.

    Attributes:
        name: what the client calls it.
        data: encoded.
    """

    name: str
    data: bytes


class _InMemory(MultiPartParser):
    """Bodies are bounded before they are parsed, so nothing is written to a disk that may be full or read-only."""

    spool_max_size = 2**40


class Intake:
    """The door.

    Args:
        settings: bounds.
        measures: are told who was let in.
    """

    def __init__(self, settings: Settings, measures: Measures) -> None:
        self.settings = settings
        self.inside = 0
        self.held = 0
        self._refused = 0
        self._refusals_an_answer = 0.0
        self._measures = measures
        self._throttle = Throttle(settings.max_requests, _TIMELY * settings.deadline)
        measures.allowed.set_function(lambda: self._throttle.allowed)
        measures.inside.set_function(lambda: self.inside)

    @asynccontextmanager
    async def admitted(self, request: Request, served: Served) -> "AsyncIterator[Guest]":
        """A request inside the house, until the block ends.

        Raises:
            Refused: 429 where the house is full or the answer would come too late, 413 by the length it states.
        """
        self._check(request, served)
        guest = Guest(request, self, served, time.monotonic() + self.settings.deadline)
        self.inside += 1
        served.coming += 1
        self._measures.admitted.inc()
        try:
            yield guest
        finally:
            guest.arrived()
            self.inside -= 1
            self.held -= guest.held
            self._left(guest, time.monotonic())

    def _left(self, guest: "Guest", now: float) -> None:
        self._measures.finished.inc()
        self._refusals_an_answer += _NEWS * (self._refused - self._refusals_an_answer)
        self._refused = 0
        self._measures.seconds.labels(guest.served.name).observe(now - guest.since)
        if guest.whole_at is not None:  # how long a client took to send says nothing of the house
            self._throttle.learn(now - guest.whole_at, now)

    def check_room(self) -> None:
        """Refuse where the house is full: the first thing that is done with a request, as most come when it is.

        Raises:
            Refused: 429; the more are refused for each that is answered, the longer they are asked to stay away.
        """
        if self.inside < self._throttle.allowed:
            return
        self._refused += 1
        away = min(_LONGEST_AWAY, 1 + self._refusals_an_answer)
        raise Refused(429, f"{self.inside} requests are in the house already", retry_after=away, unread=True)

    def _check(self, request: Request, served: Served) -> None:
        self.check_room()
        allowed = self.settings
        length = int(request.headers.get("content-length", 0))
        if length > allowed.max_body_bytes:
            raise _too_large(f"{length:,} bytes", allowed.max_body_bytes)
        wait = served.batcher.seconds_until_answered(1 + served.coming)
        if wait > _HEADROOM * allowed.deadline:
            raise Refused(
                429,
                f"{served.name} would answer in about {wait:.1f} s, past the deadline of {allowed.deadline:g} s",
                retry_after=wait,
                unread=True,
            )
        if self.held + length > allowed.max_held_bytes:
            raise _no_room()


@dataclass(eq=False)
class Guest:
    """A request that was let in.

    Attributes:
        request: unread.
        intake: the door it came by.
        served: the model it asks.
        deadline: by `time.monotonic`.
        held: bytes of its body in memory.
        since: by `time.monotonic`.
        whole_at: when its body was whole; ``None`` before.
        group: of its images, where the calibration has groups.
    """

    request: Request
    intake: Intake
    served: Served
    deadline: float
    held: int = 0
    since: float = field(default_factory=time.monotonic)
    whole_at: float | None = None
    group: str | None = None
    _on_the_way: bool = True

    @property
    def left(self) -> float:
        """Seconds to its deadline."""
        return self.deadline - time.monotonic()

    def arrived(self) -> None:
        """Its images are queued, or will never be: no batch waits for them."""
        if self._on_the_way:
            self._on_the_way = False
            self.served.coming -= 1

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            Refused: 413 too large whatever its header said, 429 no room, 408 not there by the deadline, 400 empty.
        """
        allowed, found = self.intake.settings, bytearray()
        try:
            async with asyncio.timeout(self.left):
                async for chunk in self.request.stream():
                    if len(found) + len(chunk) > allowed.max_body_bytes:
                        raise _too_large("more bytes than it stated", allowed.max_body_bytes)
                    if self.intake.held + len(chunk) > allowed.max_held_bytes:
                        raise _no_room()
                    self.intake.held += len(chunk)
                    self.held += len(chunk)
                    found += chunk
        except TimeoutError:
            raise Refused(
                408, f"the body was not there within {allowed.deadline:g} s; {len(found):,} bytes came", unread=True
            ) from None
        self.whole_at = time.monotonic()
        if not found:
            raise Refused(400, "the body is empty; send one image, or several as multipart/form-data")
        return bytes(found)

    async def uploads(self) -> list[Upload]:
        """The images of the body: one raw, or many as multipart/form-data.

        Raises:
            Refused: 400 no images or damaged form, 413 too many, 415 another kind of body; and as `body`.
        """
        kind = self.request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._parts(await self.body())
        if kind not in _RAW and not kind.startswith("image/"):
            raise Refused(
                415,
                f"a body of type {kind[:100]!r}; send one image (image/*, application/octet-stream) or many "
                "(multipart/form-data)",
                unread=True,
            )
        return [Upload("image", await self.body())]

    async def _parts(self, body: bytes) -> list[Upload]:
        async def stream() -> AsyncIterator[bytes]:
            yield body

        most = self.intake.settings.max_images
        parser = _InMemory(self.request.headers, stream(), max_files=most, max_fields=most)  # type: ignore[arg-type]
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError, ValueError) as error:  # what the parser raises on damaged forms
            raise Refused(400, f"the form cannot be read ({error}); at most {most} images a request") from None
        found = [
            Upload(shown(part.filename or key)[:200], await part.read())
            for key, part in form.multi_items()
            if not isinstance(part, str)
        ]
        await form.close()
        if not found:
            raise Refused(400, "the form holds no file; send each image as a file of multipart/form-data")
        return found


def _too_large(what: str, limit: int) -> Refused:
    return Refused(413, f"the body has {what}, more than the limit of {limit:,}", unread=True)


def _no_room() -> Refused:
    return Refused(429, "other requests' bodies fill the memory set aside for them", retry_after=1, unread=True)
