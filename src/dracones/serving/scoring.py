"""From uploads to answers: decoded, queued, judged, drawn, noted."""

import asyncio
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dracones.images.limits import UnreadableImage
from dracones.serving.answers import Answer, ImageAnswer, words_of
from dracones.serving.batcher import Job
from dracones.serving.decoding import Late
from dracones.serving.heat import as_layer
from dracones.serving.house import House
from dracones.serving.intake import Guest, Upload
from dracones.serving.models import Loaded, Scored
from dracones.serving.refusal import Refused

Image = NDArray[Any]


@dataclass
class Judged:
    """One image on its way to an answer.

    Attributes:
        name: what the client calls it.
        sha256: of its bytes.
        image: ``[H, W, C]``, once decoded.
        scored: the verdict.
        error: why there is none.
    """

    name: str
    sha256: str
    image: Image | None = None
    scored: Scored | None = None
    error: str | None = None


async def decoded(house: House, guest: Guest, uploads: Sequence[Upload]) -> list[Judged]:
    """Uploads as arrays, each with its own reason where it cannot be read.

    Raises:
        Refused: 503 past the deadline.
    """

    async def one(upload: Upload) -> Judged:
        found = Judged(upload.name, hashlib.sha256(upload.data).hexdigest())
        try:
            found.image = await house.decoder.decode(upload.data, upload.name, guest.deadline)
        except UnreadableImage as error:
            found.error = error.reason
        return found

    try:
        async with asyncio.timeout(guest.left):
            return list(await asyncio.gather(*map(one, uploads)))
    except (Late, TimeoutError):
        raise _late(guest) from None


async def judged(guest: Guest, images: Sequence[Judged], *, wants_map: bool) -> None:
    """Have decoded images scored, in one batch with whatever else waits.

    Raises:
        Refused: 429 where they would not be done in time, 503 where they were not.
    """
    ready = [each for each in images if each.image is not None]
    batcher = guest.served.batcher
    wait = batcher.seconds_until_answered(len(ready)) if ready else 0.0
    if wait > guest.left:
        raise Refused(429, f"{len(ready)} images would take about {wait:.1f} s with what waits", retry_after=wait)
    jobs: list[Job[Scored]] = [
        Job(each.image, wants_map, guest.deadline, guest.group) for each in ready if each.image is not None
    ]
    batcher.submit(jobs)
    guest.arrived()
    try:
        async with asyncio.timeout(guest.left):
            found = await asyncio.gather(*(job.future for job in jobs), return_exceptions=True)
    except TimeoutError:
        raise _late(guest) from None
    for each, answer in zip(ready, found, strict=True):
        if isinstance(answer, Late):
            raise _late(guest)
        if isinstance(answer, (ValueError, TypeError)):
            each.error = getattr(answer, "reason", None) or str(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            each.scored = answer


async def answered(
    house: House, guest: Guest, uploads: Sequence[Upload], *, heatmaps: bool, source: str = ""
) -> tuple[Answer, list[Judged]]:
    """Score a request's images and note each in the audit log.

    Raises:
        Refused: 422 where no image could be judged; and as `decoded` and `judged`.
    """
    images = await decoded(house, guest, uploads)
    await judged(guest, images, wants_map=heatmaps)
    drawing = asyncio.get_running_loop().run_in_executor
    answers = []
    for upload, each in zip(uploads, images, strict=True):
        answer = answer_of(each)
        if heatmaps and each.scored is not None and each.scored.verdict.map is not None:
            layer = await drawing(house.decoder.pool, as_layer, each.scored.verdict.map, each.scored.loaded)
            answer.heatmap = layer.data_uri
        note(house, guest, answer, each, upload.data, source)
        answers.append(answer)
    loaded = next((each.scored.loaded for each in images if each.scored is not None), None)
    if loaded is None:
        shown = "; ".join(f"{each.name}: {each.error}" for each in images[:3])
        raise Refused(422, f"no image could be judged: {shown}")
    return _whole(guest, loaded, answers), images


def note(house: House, guest: Guest, answer: ImageAnswer, each: Judged, data: bytes | None, source: str) -> None:
    """Write one answer down: in the measures, in the last hundred, in the audit log."""
    name = guest.served.name
    verdict = {True: "anomaly", False: "normal", None: "unjudged" if each.scored is None else "uncalibrated"}
    house.measures.images.labels(name, verdict[answer.is_anomaly]).inc()
    record: dict[str, Any] = {
        "time": round(time.time(), 3),
        "image": answer.sha256,
        "score": answer.score,
        "p_value": answer.p_value,
        "is_anomaly": answer.is_anomaly,
    }
    if each.scored is not None:
        # Where each group has its own calibration, a group is what the monitor can compare.
        house.watches[name].note(record, each.scored, source if answer.group is None else answer.group)
    if house.audit is None:
        return
    loaded = guest.served.current if each.scored is None else each.scored.loaded
    more = {
        "model": name,
        "model_sha256": loaded.sha256,
        "threshold": loaded.threshold_of(answer.group),
        "group": answer.group,
        "latency": round(time.monotonic() - guest.since, 4),
        "source": source,
        "error": answer.error,
    }
    house.audit.note({**record, **more}, data)


def answer_of(each: Judged) -> ImageAnswer:
    """What the client gets of one image."""
    if each.scored is None:
        return ImageAnswer(name=each.name, sha256=each.sha256, error=each.error)
    verdict, loaded = each.scored
    return ImageAnswer(
        name=each.name,
        sha256=each.sha256,
        score=verdict.score if math.isfinite(verdict.score) else None,
        p_value=verdict.p_value,
        is_anomaly=verdict.is_anomaly,
        words=words_of(verdict.p_value, loaded, verdict.group),
        witness=verdict.witness,
        group=verdict.group,
    )


def _whole(guest: Guest, loaded: Loaded, images: list[ImageAnswer]) -> Answer:
    return Answer(
        model=guest.served.name,
        sha256=loaded.sha256,
        threshold=loaded.threshold_of(guest.group),
        false_alarm_rate=loaded.false_alarm_rate,
        images=images,
    )


def _late(guest: Guest) -> Refused:
    return Refused(
        503,
        f"not done by the deadline of {guest.intake.settings.deadline:g} s",
        retry_after=guest.served.batcher.seconds_until_answered(1),
    )
