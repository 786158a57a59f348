"""The process: sockets, signals, and an orderly end."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dracones.serving.app import create_app
from dracones.serving.house import House
from dracones.serving.models import Load
from dracones.serving.settings import Settings

_HEAD_SECONDS = 10.0
_CONNECTIONS = 1000
log = logging.getLogger("dracones.serving")


class _Patient(H11Protocol):
    """uvicorn's protocol, closing lines on which no whole request head comes: they would be held for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A line was opened."""
        self._head_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._expect_head()

    def on_response_complete(self) -> None:
        """An answer is out; the next head may come."""
        super().on_response_complete()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The line is closed."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._no_head)

    def _no_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server that drains on SIGTERM and ends with 0.

    At SIGTERM the service is no longer ready and asks for lines to be closed, but answers what comes for `drain`
    seconds, until whoever balances the load has seen it. Then the door closes, and what is inside is answered. The
    process is at its end then: SIGTERM once more changes nothing.
    """

    def __init__(self, config: uvicorn.Config, house: House, ready: Callable[[str], Any] | None) -> None:
        super().__init__(config)
        self.house = house
        self._ready = ready
        self._told_to_end = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door, and say so."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        if self._ready is not None:
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Without uvicorn's own, which raises the signal again at the end: the exit code would not be 0."""
        loop = asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGTERM, self._end)
            loop.add_signal_handler(signal.SIGINT, self.stop, 0.0)
        except (RuntimeError, ValueError, NotImplementedError):  # not the main thread, or no such signals here
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)
            if self._told_to_end:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _end(self) -> None:
        self._told_to_end = True
        self.stop(self.house.settings.drain)

    def stop(self, after: float) -> None:
        """Drain, and close the door after so many seconds."""
        if not self.house.draining:
            log.info("draining: %d requests inside", len(self.server_state.tasks))
        self.house.draining = True
        asyncio.get_running_loop().call_later(after, self._close_the_door)

    def _close_the_door(self) -> None:
        self.should_exit = True


def make_server(house: House, ready: Callable[[str], Any] | None = None) -> Server:
    """A server for a house, not yet running."""
    settings = house.settings
    config = uvicorn.Config(
        create_app(house),
        host=settings.host,
        port=settings.port,
        http=_Patient,
        ws="none",
        loop="asyncio",
        access_log=False,  # the audit log and the measures say more
        log_level="warning",
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(settings.deadline) + 5,
    )
    return Server(config, house, ready)


def serve(
    models: Mapping[str, Path],
    settings: Settings,
    *,
    load: Load,
    without_threshold: bool = False,
    ready: Callable[[str], Any] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what is inside then is answered first.

    Args:
        models: file of each name.
        settings: of the service.
        load: a file to a detector.
        without_threshold: whether models may give scores alone.
        ready: is called with the address once the door is open.

    Raises:
        ValueError: a file that cannot be served.
        OSError: the address is taken.
    """
    with _bound(settings) as door:  # before the models are read: an address that is taken is said at once
        house = House(models, load, settings, without_threshold=without_threshold)
        asyncio.run(make_server(house, ready).serve(sockets=[door]))


def _bound(settings: Settings) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    door = socket.socket(family, kind, protocol)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(address)
    except OSError as error:
        door.close()
        raise OSError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; name another --port or --host"
        ) from None
    return door
