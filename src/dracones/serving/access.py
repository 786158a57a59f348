"""Who may ask: a token where one is set; without one, nobody whom another web page sends."""

import hmac
import ipaddress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dracones.serving.house import House
from dracones.serving.refusal import Refused

OPEN = frozenset({"/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""What any caller may ask: whether the service lives, and the page, which knows nothing by itself."""


class Access:
    """The outermost layer: who asks, whether there is room, counts of answers, and lines closed while draining.

    A page of another site may send forms to a service on the reader's own machine. Browsers say so
    (``Sec-Fetch-Site``), and a name that was made to point here shows in ``Host``.
    """

    def __init__(self, app: ASGIApp, house: House) -> None:
        self.app, self.house = app, house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                if self.house.draining:
                    headers["connection"] = "close"
                route = getattr(scope.get("route"), "path", "other")
                self.house.measures.requests.labels(route, str(message["status"])).inc()
            await send(message)

        try:
            self._check(Headers(scope=scope), scope["path"])
            if scope["method"] == "POST":
                self.house.intake.check_room()
        except Refused as refused:
            await refused.response()(scope, receive, sent)
            return
        await self.app(scope, receive, sent)

    def _check(self, headers: Headers, path: str) -> None:
        token = self.house.settings.token
        if token is None:
            _same_machine(headers)
        elif path not in OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
                raise Refused(401, "send the token: Authorization: Bearer ...", unread=True)


def _same_machine(headers: Headers) -> None:
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refused(403, "another site's page sent this; only this service's own page may", unread=True)
    host = headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in ("", "localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise Refused(
            403,
            f"asked as {name[:100]!r}: without a token the service answers to localhost or an address; set "
            "DRACONES_TOKEN to be reached by a name",
            unread=True,
        ) from None
