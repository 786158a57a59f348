"""What a client gets: plain data with one meaning a field."""

from typing import Any

from pydantic import BaseModel, Field

from dracones.serving.models import Loaded, Served
from dracones.serving.words import p_value_in_words


class ImageAnswer(BaseModel):
    """One image's answer; either ``error`` is set or the verdict."""

    name: str
    sha256: str = Field(description="of the image's bytes as they came")
    score: float | None = Field(default=None, description="larger = more anomalous; null where it is not finite")
    p_value: float | None = Field(default=None, description="share of good images expected to score at least this high")
    is_anomaly: bool | None = Field(default=None, description="score above the threshold")
    words: str | None = Field(default=None, description="the p-value in a sentence")
    witness: str | None = Field(default=None, description="of an ensemble: who was surprised most")
    group: str | None = Field(default=None, description="whose calibration the p-value and the verdict are by")
    heatmap: str | None = Field(default=None, description="PNG as a data URL: colours whose opacity is the heat")
    error: str | None = Field(default=None, description="why there is no verdict")


class Answer(BaseModel):
    """The answer to one request."""

    model: str
    sha256: str = Field(description="of the model's file")
    threshold: float | None
    false_alarm_rate: float | None
    images: list[ImageAnswer]


class ModelFacts(BaseModel):
    """A model in service."""

    name: str
    method: str
    file: str
    sha256: str
    threshold: float | None
    groups: dict[str, float] | None = Field(description="the threshold of each group, where each has its own")
    false_alarm_rate: float | None
    calibrated_on: int
    gives_maps: bool
    seconds_an_image: float
    since: float
    trouble: str | None = Field(default=None, description="why the file that lies there now is not in service")


class Problem(BaseModel):
    """Why a request was not served."""

    detail: Any


def facts_of(served: Served) -> ModelFacts:
    """What is known of a model in service."""
    current = served.current
    return ModelFacts(
        name=served.name,
        method=current.detector.info.name,
        file=served.path.name,
        sha256=current.sha256,
        threshold=current.threshold,
        groups=None if current.groups is None else dict(current.groups.thresholds),
        false_alarm_rate=current.false_alarm_rate,
        calibrated_on=len(current.calibration_scores),
        gives_maps=current.detector.gives_maps,
        seconds_an_image=current.seconds,
        since=current.since,
        trouble=served.trouble,
    )


def words_of(p_value: float | None, loaded: Loaded, group: str | None) -> str:
    """The p-value in a sentence."""
    return p_value_in_words(p_value, loaded.calibrated_on(group))


class Recent(BaseModel):
    """What was judged of late.

    Attributes:
        verdicts: time, image, score, p_value and is_anomaly of each, oldest first.
        monitor: what the monitor says of a change; ``None`` where there is none.
        confirms: whether images can be confirmed as good.
    """

    verdicts: list[dict[str, Any]]
    monitor: dict[str, Any] | None
    confirms: bool


class Confirmed(BaseModel):
    """An image that a person called good."""

    sha256: str
    kept: int = Field(description="images confirmed for this model so far")
