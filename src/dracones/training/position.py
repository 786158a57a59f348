"""How far a run has come: all of it that is neither a weight nor a function of seed and step."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dracones.training.outcome import Reading


class Position(BaseModel):
    """Counters of a run; a plain JSON object in its checkpoint.

    Example:
        >>> position = Position(step=3)
        >>> position.applied(2.0); position.applied(1.0); position.read(epoch=0, validation_loss=None)
        >>> position.history[0].train_loss
        1.5
    """

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    skipped_steps: int = 0
    consecutive_skipped: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    history: list[Reading] = Field(default_factory=list)
    best_loss: float | None = None
    best_step: int | None = None
    without_improvement: int = 0
    stopped_by: Literal["epochs", "max_steps", "max_seconds", "patience"] | None = None

    def applied(self, loss: float) -> None:
        """A step was made."""
        self.loss_sum += loss
        self.loss_count += 1
        self.consecutive_skipped = 0

    def skipped(self) -> None:
        """A step was undone."""
        self.skipped_steps += 1
        self.consecutive_skipped += 1

    def read(self, epoch: int, validation_loss: float | None) -> None:
        """Close the running mean of the loss with a line of the training curve."""
        finite = validation_loss is not None and abs(validation_loss) < float("inf")
        self.history.append(
            Reading(
                step=self.step,
                epoch=epoch,
                seconds=self.seconds,
                learning_rate=self.learning_rate,
                train_loss=self.loss_sum / self.loss_count if self.loss_count else None,
                validation_loss=validation_loss if finite else None,
            )
        )
        self.loss_sum, self.loss_count = 0.0, 0

    def improved(self, loss: float, least: float) -> bool:
        """Whether a validation loss is the lowest so far, by at least `least`; a non-finite one never is."""
        if abs(loss) < float("inf") and (self.best_loss is None or loss < self.best_loss - least):
            self.best_loss, self.best_step, self.without_improvement = loss, self.step, 0
            return True
        self.without_improvement += 1
        return False

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return self.model_dump(mode="json")
