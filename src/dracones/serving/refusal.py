"""A request that is not served, and the answer that says so."""

import asyncio
import math
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

_PATIENCE = 1.0


class Refused(Exception):  # noqa: N818 (reads as what it says)
    """A request is turned away: ``status`` and ``reason`` go to the client.

    Args:
        status: of HTTP.
        reason: in words.
        retry_after: seconds after which another try is worth while.
        unread: whether a body may still be under way.
    """

    def __init__(self, status: int, reason: str, *, retry_after: float | None = None, unread: bool = False) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after, self.unread = status, reason, retry_after, unread

    def response(self) -> JSONResponse:
        """What the client gets."""
        headers = {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if not self.unread:
            return JSONResponse({"detail": self.reason}, self.status, headers)
        return _Unread({"detail": self.reason}, self.status, {**headers, "connection": "close"})


class _Unread(JSONResponse):
    """An answer before the body was read: what is still coming is dropped for a moment, then the line is cut.

    Closing at once would reset the connection under a client that is sending, and the answer would be lost with it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
