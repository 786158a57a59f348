"""The second version of KServe's inference protocol: the same scoring under the names that other servers use.

A request brings one input ``image``: ``UINT8`` ``[B, C, H, W]`` (decoded), or ``BYTES`` ``[B]`` (encoded images in
base64). Outputs are ``score``, ``p_value``, ``is_anomaly``, and ``map`` where it is asked for by name. Where the model
was calibrated by groups, the request's parameter ``group`` names that of its images.
Reference: kserve.github.io, "Open Inference Protocol (V2)".
"""

import asyncio
import base64
import binascii
import hashlib
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field, ValidationError

import dracones
from dracones.serving.house import House
from dracones.serving.intake import Guest, Upload
from dracones.serving.models import Scored, Served
from dracones.serving.refusal import Refused
from dracones.serving.scoring import Judged, answer_of, decoded, judged, note

_PLATFORM = "dracones"


class Tensor(BaseModel):
    """One input."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=4)
    datatype: Literal["UINT8", "BYTES"]
    data: list[Any]


class Wanted(BaseModel):
    """One output that is asked for."""

    name: Literal["score", "p_value", "is_anomaly", "map"]


class Parameters(BaseModel):
    """What a request says of its images."""

    group: str | None = Field(default=None, max_length=200)


class InferRequest(BaseModel):
    """A request."""

    id: str | None = Field(default=None, max_length=200)
    parameters: Parameters = Parameters()
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Wanted] | None = None


class Output(BaseModel):
    """One output."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferResponse(BaseModel):
    """An answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Output]


class Fault(BaseModel):
    """Why a request was not served."""

    error: str


_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault} for status in (400, 401, 403, 404, 408, 413, 422, 429, 503)
}


def add_routes(app: FastAPI, house: House) -> None:
    """Add the protocol's routes."""
    looking: dict[int | str, dict[str, Any]] = {status: _FAULTS[status] for status in (401, 403, 404, 422)}

    @app.get("/v2", responses=looking)
    async def server() -> dict[str, Any]:
        """The server."""
        return {"name": "dracones", "version": dracones.__version__, "extensions": []}

    @app.get("/v2/health/live", responses=looking)
    async def live() -> dict[str, bool]:
        """Whether the service lives."""
        return {"live": True}

    @app.get("/v2/health/ready", responses={**looking, 503: _FAULTS[503]})
    async def ready() -> dict[str, bool]:
        """Whether requests should be sent here."""
        if house.unready is not None:
            raise Refused(503, house.unready, retry_after=5)
        return {"ready": True}

    @app.get("/v2/models/{name}", responses=looking)
    async def model(name: str) -> dict[str, Any]:
        """What a model takes and gives."""
        return _metadata(house.named(name))

    @app.get("/v2/models/{name}/ready", responses={**looking, 503: _FAULTS[503]})
    async def model_ready(name: str) -> dict[str, Any]:
        """Whether a model scores."""
        served = house.named(name)
        if not served.batcher.alive:
            raise Refused(503, f"no thread scores for {name}", retry_after=5)
        return {"name": served.name, "ready": True}

    @app.post(
        "/v2/models/{name}/infer",
        responses=_FAULTS,
        openapi_extra={"requestBody": {"content": {"application/json": {"schema": _schema()}}, "required": True}},
    )
    async def infer(name: str, request: Request) -> InferResponse:
        """Score images."""
        served = house.named(name)
        async with house.intake.admitted(request, served) as guest:
            body = await guest.body()
            asked = await asyncio.to_thread(_parsed, body)
            guest.group = house.group_of(served, asked.parameters.group, status=400)
            names: set[str] = (
                {"score", "p_value", "is_anomaly"} if asked.outputs is None else {each.name for each in asked.outputs}
            )
            if "map" in names and not served.current.detector.gives_maps:
                raise Refused(400, f"{name} gives no heat maps")
            images = await _images(house, guest, asked.inputs[0])
            await judged(guest, images, wants_map="map" in names)
            broken = next((each for each in images if each.scored is None), None)
            if broken is not None:
                raise Refused(400, f"{broken.name}: {broken.error}")
            for each in images:
                note(house, guest, answer_of(each), each, None, "")
            scored = [each.scored for each in images if each.scored is not None]
            return InferResponse(
                model_name=name,
                model_version=scored[0].loaded.sha256[:12],
                id=asked.id,
                outputs=_outputs(scored, names),
            )


def _schema() -> dict[str, Any]:
    """The request's schema in one piece: its parts are no components of the application, which reads it late."""
    whole = InferRequest.model_json_schema()
    parts = whole.pop("$defs")

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return parts[node["$ref"].rpartition("/")[2]]
        return {key: filled(each) for key, each in node.items()}

    found: dict[str, Any] = filled(whole)
    return found


def _metadata(served: Served) -> dict[str, Any]:
    calibrated = served.current.threshold is not None or served.current.groups is not None
    outputs = [{"name": "score", "datatype": "FP32", "shape": [-1]}]
    if calibrated:
        outputs += [
            {"name": "p_value", "datatype": "FP64", "shape": [-1]},
            {"name": "is_anomaly", "datatype": "BOOL", "shape": [-1]},
        ]
    if served.current.detector.gives_maps:
        outputs.append({"name": "map", "datatype": "FP32", "shape": [-1, -1, -1]})
    return {
        "name": served.name,
        "versions": [served.current.sha256[:12]],
        "platform": _PLATFORM,
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, -1]}],
        "outputs": outputs,
    }


def _parsed(body: bytes) -> InferRequest:
    try:
        return InferRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(400, f"no request of the protocol: {where}: {first['msg']}"[:300]) from None


async def _images(house: House, guest: Guest, tensor: Tensor) -> list[Judged]:
    most = guest.intake.settings.max_images
    if tensor.name != "image":
        raise Refused(400, f"an input {tensor.name[:100]!r}; the only one is 'image'")
    if not 1 <= tensor.shape[0] <= most:
        raise Refused(413, f"{tensor.shape[0]} images; between 1 and {most} are taken at a time")
    if tensor.datatype == "BYTES":
        return await decoded(house, guest, await asyncio.to_thread(_encoded, tensor))
    return await asyncio.to_thread(_pixels, house, tensor)


def _encoded(tensor: Tensor) -> list[Upload]:
    if tensor.shape != [len(tensor.data)] or not all(isinstance(each, str) for each in tensor.data):
        raise Refused(400, f"BYTES of shape {tensor.shape} is a list of {tensor.shape[0]} texts in base64")
    try:
        return [Upload(f"image {i}", base64.b64decode(each, validate=True)) for i, each in enumerate(tensor.data)]
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"BYTES that are no base64: {error}") from None


def _pixels(house: House, tensor: Tensor) -> list[Judged]:
    if len(tensor.shape) != 4 or min(tensor.shape) < 1:
        raise Refused(400, f"UINT8 of shape {tensor.shape}; [B, C, H, W] is expected")
    height, width = tensor.shape[2:]
    if height * width > house.settings.limits.max_pixels:
        raise Refused(413, f"{height}x{width} pixels, more than the limit of {house.settings.limits.max_pixels:,}")
    try:
        values = np.array(tensor.data)
        if values.dtype.kind not in "iu" or values.size != np.prod(tensor.shape, dtype=object):
            raise ValueError(f"{values.size} values of type {values.dtype}")
        if values.min() < 0 or values.max() > 255:
            raise ValueError("values outside 0 to 255")
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"UINT8 of shape {tensor.shape}: {error}"[:300]) from None
    images = values.astype(np.uint8).reshape(tensor.shape).transpose(0, 2, 3, 1)
    return [
        Judged(f"image {i}", hashlib.sha256(image.tobytes()).hexdigest(), np.array(image))
        for i, image in enumerate(images)
    ]


def _outputs(scored: list[Scored], names: set[str]) -> list[Output]:
    verdicts = [each.verdict for each in scored]
    found: list[tuple[str, str, list[Any]]] = [("score", "FP32", [each.score for each in verdicts])]
    if verdicts[0].p_value is not None:
        found.append(("p_value", "FP64", [each.p_value for each in verdicts]))
    if verdicts[0].is_anomaly is not None:
        found.append(("is_anomaly", "BOOL", [each.is_anomaly for each in verdicts]))
    outputs = [
        Output(name=name, shape=[len(values)], datatype=kind, data=values)
        for name, kind, values in found
        if name in names
    ]
    if "map" in names:
        maps = [each.map for each in verdicts if each.map is not None]
        if len({plane.shape for plane in maps}) != 1:
            raise Refused(400, "maps of images of several sizes are no tensor; ask for one size at a time")
        stacked = np.stack(maps)
        outputs.append(
            Output(name="map", shape=list(stacked.shape), datatype="FP32", data=stacked.astype(float).ravel().tolist())
        )
    return outputs
