"""What a training run is told: an immutable record that travels with the weights."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_EPOCHS = 10


class TrainingConfig(BaseModel):
    """How long, how fast and with what precision to train.

    The run ends at whichever of `epochs`, `max_steps`, `max_seconds` comes first; if none is given it lasts 10 epochs.
    The learning rate follows the share of the run that is done: of its steps or, where only `max_seconds` is given,
    of its seconds. `batch_size` is the batch of one step over all processes together.

    Example:
        >>> config = TrainingConfig(epochs=3, schedule="step")
        >>> config.milestones, config.decay
        ((0.8, 0.9), 0.5)
        >>> TrainingConfig(epochs=3).model_copy(update={"epochs": 4}).epochs
        4
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | None = Field(default=None, ge=1, description="passes over the data at most")
    max_steps: int | None = Field(default=None, ge=1, description="optimizer steps at most")
    max_seconds: float | None = Field(
        default=None, gt=0, description="wall-clock seconds at most, over all resumptions"
    )
    batch_size: int = Field(default=32, ge=1, description="images per step, over all processes together")
    drop_last: bool = Field(default=True, description="leave out an epoch's last batch where it is not full")

    optimizer: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="adam, adamw, adamax")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="sgd, rmsprop")
    smoothing: float = Field(default=0.99, ge=0, lt=1, description="rmsprop: decay of the mean square")
    epsilon: float = Field(default=1e-8, gt=0, description="every optimizer but sgd: added to the denominator")

    schedule: Literal["constant", "cosine", "step"] = "constant"
    milestones: tuple[float, ...] = Field(
        default=(0.8, 0.9), description="step: shares of the run at which the rate falls"
    )
    decay: float = Field(default=0.5, gt=0, le=1, description="step: factor at each milestone")
    final_fraction: float = Field(
        default=0.0, ge=0, le=1, description="cosine: share of the learning rate left at the end"
    )
    warmup: float = Field(default=0.0, ge=0, description="linear warm-up: a share of the run below 1, else steps")
    warmup_start: float = Field(
        default=0.0, ge=0, le=1, description="share of the learning rate that warm-up starts from"
    )

    clip_norm: float | None = Field(default=None, gt=0, description="largest Euclidean norm of the whole gradient")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast; weights stay float32")
    average: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is what is kept",
    )
    max_nonfinite: int = Field(
        default=20, ge=1, description="consecutive non-finite steps that end the run with an error"
    )

    validate_steps: int | None = Field(
        default=None, ge=1, description="validate every so many steps; default: every epoch"
    )
    validate_start: bool = Field(
        default=False, description="validate before the first step too: a run that gains nothing ends where it began"
    )
    patience: int | None = Field(default=None, ge=1, description="validations without improvement before stopping")
    min_improvement: float = Field(default=0.0, ge=0, description="fall of the validation loss that counts as one")
    restore_best: bool = Field(default=True, description="end with the weights of the lowest validation loss")

    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    threads: int | None = Field(default=None, ge=1, description="CPU threads during the run; default: as they are")
    workers: int = Field(
        default=0, ge=0, description="processes that read the data; of use where items are read from disk"
    )
    checkpoint_seconds: float = Field(default=60.0, ge=0, description="seconds between two checkpoints")
    checkpoint_steps: int | None = Field(
        default=None, ge=1, description="steps between two checkpoints, instead of seconds"
    )

    @model_validator(mode="after")
    def _milestones_are_shares(self) -> "TrainingConfig":
        if any(not 0 < share < 1 for share in self.milestones):
            raise ValueError(f"milestones are shares of the run between 0 and 1; got {self.milestones}")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must not fall; got {self.milestones}")
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1); got {self.betas}")
        return self

    def total_steps(self, steps_per_epoch: int) -> int | None:
        """Steps after which the run ends; `None` where only seconds bound it.

        Example:
            >>> TrainingConfig(epochs=3, max_steps=50).total_steps(steps_per_epoch=10)
            30
        """
        epochs = self.epochs
        if epochs is None and self.max_steps is None and self.max_seconds is None:
            epochs = DEFAULT_EPOCHS
        bounds = [self.max_steps, None if epochs is None else epochs * steps_per_epoch]
        return min((bound for bound in bounds if bound is not None), default=None)


# A run may be resumed with these changed: they move work around or bound it, and leave the path of the weights alone.
MAY_CHANGE_ON_RESUME = frozenset(
    {"checkpoint_seconds", "checkpoint_steps", "device", "threads", "workers", "max_seconds"}
)
