"""Which classifier a guard was fitted on and where it read: what the file says of the network that it does not hold."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from dracones.methods.guards.fingerprint import fingerprint
from dracones.methods.guards.pooling import Pool
from dracones.methods.method import FileExtras


class ClassifierIdentity(BaseModel):
    """Which classifier a guard was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str = Field(min_length=12, max_length=200, description="of its weights; see `fingerprint`")
    type: str = Field(max_length=200, description="name of its class")


class ReadLayer(BaseModel):
    """Where the features were read while fitting, so that scoring reads the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=1, max_length=1000)
    side: Literal["input", "output"]
    pool: Pool


class GuardExtras(FileExtras):
    """What a guard's file says of the classifier, which it does not hold."""

    classifier: ClassifierIdentity
    layer: ReadLayer | None = None
    accuracy: float | None = Field(None, ge=0, le=1)


def check_fingerprint(classifier: nn.Module, expected: str, kind: str) -> None:
    """Refuse a classifier whose weights are not those the guard was fitted on.

    Raises:
        ValueError: the fingerprints differ (both are shown, shortened).
    """
    got = fingerprint(classifier)
    if got != expected:
        raise ValueError(
            f"the guard was fitted on a {kind} with weights {expected[:12]}, this {type(classifier).__name__} has "
            f"{got[:12]}: its scores and threshold would mean nothing; load the same weights (and type: half precision "
            "counts as other weights), or fit again"
        )
