"""What a training run reports when it is over."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Reading(BaseModel):
    """One line of the training curve: taken at every validation, or at the end of every epoch without one."""

    model_config = ConfigDict(frozen=True)

    step: int
    epoch: int
    seconds: float
    learning_rate: float
    train_loss: float | None = Field(description="mean over the applied steps since the last reading")
    validation_loss: float | None = None


class TrainingReport(BaseModel):
    """How a run went; `model_dump_json()` writes it down.

    Example:
        >>> report = TrainingReport(steps=10, epochs=1.0, images=320, seconds=2.0, stopped_by="epochs")
        >>> report.images_per_second
        160.0
    """

    model_config = ConfigDict(frozen=True)

    steps: int = Field(description="steps made, the skipped included")
    epochs: float
    images: int = Field(description="images seen, over all processes")
    seconds: float = Field(description="wall-clock time, validation and earlier sessions of a resumed run included")
    stopped_by: Literal["epochs", "max_steps", "max_seconds", "patience"]
    history: tuple[Reading, ...] = ()
    skipped_steps: int = Field(
        default=0, description="steps with a non-finite loss or gradient: counted, never applied"
    )
    best_step: int | None = Field(default=None, description="step of the lowest validation loss")
    best_validation_loss: float | None = None
    resumed_from: int | None = Field(default=None, description="step at which a checkpoint was taken up")
    failed_checkpoints: int = Field(default=0, description="checkpoints that could not be written")
    device: str = "cpu"
    processes: int = 1

    @property
    def images_per_second(self) -> float:
        """Throughput over the whole run."""
        return self.images / self.seconds if self.seconds > 0 else 0.0
