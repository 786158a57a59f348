"""The service as an ASGI application: its routes, and how they fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

import dracones
from dracones.images.limits import UnreadableImage
from dracones.serving import kserve
from dracones.serving.access import Access
from dracones.serving.answers import Answer, Confirmed, ModelFacts, Problem, Recent, facts_of
from dracones.serving.heat import drawn_over
from dracones.serving.house import House
from dracones.serving.page import page
from dracones.serving.refusal import Refused
from dracones.serving.scoring import answered

_ONE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_MANY = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            "required": ["image"],
        }
    }
}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    """What a route reads by itself, once the request is let in: FastAPI would read it before."""
    return {"requestBody": {"content": content, "required": True}}


def _text(kind: str) -> dict[str, Any]:
    return {"content": {kind: {"schema": {"type": "string"}}}, "description": "as it is"}


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "an empty body, or a damaged form"},
    401: {"model": Problem, "description": "no token, or another"},
    403: {"model": Problem, "description": "sent by another site's page"},
    404: {"model": Problem, "description": "no such model"},
    408: {"model": Problem, "description": "the body was not there by the deadline"},
    413: {"model": Problem, "description": "too large"},
    415: {"model": Problem, "description": "no image"},
    422: {"model": Problem, "description": "no image that could be judged, or a parameter out of range"},
    429: {"model": Problem, "description": "the house is full; see Retry-After"},
    503: {"model": Problem, "description": "not done by the deadline, or about to stop; see Retry-After"},
}
_ASKED: dict[int | str, dict[str, Any]] = {status: _REFUSALS[status] for status in (401, 403, 404, 422)}
_OPEN: dict[int | str, dict[str, Any]] = {403: _REFUSALS[403]}
Source = Annotated[str, Query(max_length=64, description="where the images come from: a line, a camera")]

Group = Annotated[
    str | None, Query(max_length=200, description="of the images, where the model was calibrated by groups")
]


def create_app(house: House) -> FastAPI:
    """The application around models in service; closes the house at its end."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        del app
        watch = asyncio.create_task(house.watch_files()) if house.settings.reload_every else None
        yield
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await asyncio.to_thread(house.close)

    app = FastAPI(
        title="dracones",
        version=dracones.__version__,
        description="Says of images whether they belong, with a promised false-alarm rate, and where they do not.",
        lifespan=life,
        docs_url=None,  # their pages fetch scripts from other hosts
        redoc_url=None,
    )
    app.add_middleware(Access, house=house)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    _add_scoring(app, house)
    _add_looking(app, house)
    kserve.add_routes(app, house)
    return app


def _add_scoring(app: FastAPI, house: House) -> None:
    @app.post("/v1/models/{name}/score", responses=_REFUSALS, openapi_extra=_body({**_ONE, **_MANY}))
    async def score(
        name: str, request: Request, heatmap: bool = False, source: Source = "", group: Group = None
    ) -> Answer:
        """Score one image (the body) or many (files of a form); with `heatmap`, a layer to lay over each."""
        served = house.named(name)
        own = house.group_of(served, group)
        async with house.intake.admitted(request, served) as guest:
            guest.group = own
            answer, _ = await answered(
                house,
                guest,
                await guest.uploads(),
                heatmaps=heatmap and served.current.detector.gives_maps,
                source=source,
            )
            return answer

    @app.post(
        "/v1/models/{name}/heatmap",
        responses={**_REFUSALS, 200: {"content": {"image/png": {}}, "description": "the map over its image"}},
        response_class=Response,
        openapi_extra=_body(_ONE),
    )
    async def heatmap(name: str, request: Request, source: Source = "", group: Group = None) -> Response:
        """One image's heat map, drawn over it (PNG); the verdict is in the headers."""
        served = house.named(name)
        if not served.current.detector.gives_maps:
            raise Refused(422, f"{name} gives no heat maps; /v1/models/{name}/score gives its verdicts", unread=True)
        own = house.group_of(served, group)
        async with house.intake.admitted(request, served) as guest:
            guest.group = own
            uploads = await guest.uploads()
            if len(uploads) > 1:
                raise Refused(422, f"{len(uploads)} images; a heat map is drawn of one, /score takes many")
            answer, (found,) = await answered(house, guest, uploads, heatmaps=True, source=source)
            if found.scored is None or found.scored.verdict.map is None or found.image is None:
                raise Refused(422, "the model gave no heat map for this image")
            drawn = await asyncio.get_running_loop().run_in_executor(
                house.decoder.pool, drawn_over, found.image, found.scored.verdict.map, found.scored.loaded
            )
            said = answer.images[0].model_dump(include={"score", "p_value", "is_anomaly"})
            headers = {f"x-dracones-{key.replace('_', '-')}": str(value).lower() for key, value in said.items()}
            return Response(drawn.data, media_type="image/png", headers=headers)

    @app.post("/v1/models/{name}/confirm", responses=_CONFIRM, openapi_extra=_body(_ONE))
    async def confirm(name: str, request: Request, group: Group = None) -> Confirmed:
        """A person calls this image good: it is kept for a later calibration, unchanged."""
        served = house.named(name)
        if house.confirmed is None:
            raise Refused(403, "this service keeps no confirmed images; start it with --confirmed DIR", unread=True)
        own = house.group_of(served, group)
        async with house.intake.admitted(request, served) as guest:
            uploads = await guest.uploads()
            guest.arrived()
            if len(uploads) > 1:
                raise Refused(422, f"{len(uploads)} images; confirm one at a time, as a person looks at one")
            try:
                await house.decoder.decode(uploads[0].data, uploads[0].name, guest.deadline)
                kept = await asyncio.to_thread(house.confirmed.keep, uploads[0].data, name, own)
            except UnreadableImage as error:
                raise Refused(422, f"{uploads[0].name}: {error.reason}") from None
            except OSError as error:
                raise Refused(507, f"the image could not be kept: {error.strerror or error}") from None
            return Confirmed(sha256=kept.stem, kept=len(list(kept.parent.iterdir())))


def _add_looking(app: FastAPI, house: House) -> None:
    @app.get("/v1/models", responses=_ASKED)
    async def models() -> list[ModelFacts]:
        """The models in service."""
        return [facts_of(served) for served in house.served.values()]

    @app.get("/v1/models/{name}", responses=_ASKED)
    async def model(name: str) -> ModelFacts:
        """One model in service."""
        return facts_of(house.named(name))

    @app.get("/v1/models/{name}/recent", responses=_ASKED)
    async def recent(name: str) -> Recent:
        """The last hundred verdicts, oldest first, and what the monitor says."""
        watch = house.watches[house.named(name).name]
        return Recent(verdicts=list(watch.recent), monitor=watch.state(), confirms=house.confirmed is not None)

    @app.get("/healthz", responses=_OPEN)
    async def healthz() -> dict[str, str]:
        """Whether the service lives."""
        return {"status": "alive"}

    @app.get("/readyz", responses={**_OPEN, 503: _REFUSALS[503]})
    async def readyz() -> dict[str, str | None]:
        """Whether requests should be sent here."""
        if house.unready is not None:
            raise Refused(503, house.unready, retry_after=5)
        return {"status": "ready", "audit": None if house.audit is None else house.audit.trouble or "written"}

    @app.get("/metrics", response_class=Response, responses={**_ASKED, 200: _text("text/plain")})
    async def metrics() -> Response:
        """What a Prometheus server reads."""
        return Response(house.measures.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/", response_class=Response, responses={**_OPEN, 200: _text("text/html")})
    async def start() -> Response:
        """The page."""
        return page()


_CONFIRM = {**_REFUSALS, 507: {"model": Problem, "description": "no room on the disk"}}


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    response = error.response()
    if request.url.path.startswith("/v2/"):
        response.body = JSONResponse({"error": error.reason}).body
        response.headers["content-length"] = str(len(response.body))
    return response


async def _gone(request: Request, error: Exception) -> Response:
    """The client hung up: nobody reads this."""
    del request, error
    return Response(status_code=400)


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of the service or of a model; uvicorn logs where."""
    del request
    return JSONResponse({"detail": f"the service failed: {type(error).__name__}"}, 500)
