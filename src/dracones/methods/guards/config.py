"""Options of every guard."""

from typing import Any

from pydantic import Field, model_validator

from dracones.methods.config import MethodConfig
from dracones.methods.guards.loading import NamedClassifier


class GuardConfig(MethodConfig):
    """What every guard can be asked for.

    ``classifier`` is set by `dracones.create` where a text names it; a module is passed to ``create`` itself.
    """

    classifier: str | None = Field(
        None,
        description="timm name (with classifier_weights), module:function, file.py:function, or file of torch.export",
    )
    classifier_weights: str | None = Field(
        None, description="local state dict, safetensors or torch; not kept in a file"
    )
    mean: tuple[float, ...] | None = Field(
        None, description="per-channel mean subtracted before the classifier; none if it normalises by itself"
    )
    std: tuple[float, ...] | None = Field(None, description="per-channel standard deviation divided by, beside mean")
    layer: str | None = Field(
        None, description="layer whose output is the features; what goes into the layer that gives the logits if none"
    )
    accelerate: bool = Field(
        False,
        description="score with a faster copy: BatchNorm folded, channels last; the same to rounding",
    )
    output: str | int | None = Field(
        None, description="key, field or position of the logits, where the classifier returns several"
    )
    validation_share: float = Field(
        0.0, ge=0, lt=0.9, description="share of the normal images kept from fitting; ODIN chooses epsilon on it"
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> "GuardConfig":
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        return self


def treatment_of(config: GuardConfig, named: NamedClassifier) -> dict[str, Any]:
    """How timm brings images to this network's size, unless a size was asked for; all of it is written down."""
    if config.size is not None or named.size is None:
        return {}
    asked = config.model_fields_set
    wanted = {"size": named.size, "crop": named.crop, "interpolation": named.interpolation, "fit": named.fit}
    return {key: value for key, value in wanted.items() if value is not None and key not in asked}
