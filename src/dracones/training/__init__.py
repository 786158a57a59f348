"""One loop for all that trains: resumable after a kill at any moment, the same result each time, nothing pickled."""

from typing import TYPE_CHECKING

from dracones.lazy import lazily

if TYPE_CHECKING:
    from dracones.training.config import TrainingConfig as TrainingConfig
    from dracones.training.guard import NonFiniteError as NonFiniteError
    from dracones.training.loop import train as train
    from dracones.training.outcome import Reading as Reading
    from dracones.training.outcome import TrainingReport as TrainingReport
    from dracones.training.progress import Progress as Progress
    from dracones.training.progress import RichProgress as RichProgress
    from dracones.training.progress import Silent as Silent
    from dracones.training.progress import counting as counting
    from dracones.training.step import Loss as Loss
    from dracones.training.world import launched as launched

__all__ = [
    "Loss",
    "NonFiniteError",
    "Progress",
    "Reading",
    "RichProgress",
    "Silent",
    "TrainingConfig",
    "TrainingReport",
    "counting",
    "launched",
    "train",
]

_HOMES = {
    "Loss": "step",
    "NonFiniteError": "guard",
    "Progress": "progress",
    "Reading": "outcome",
    "RichProgress": "progress",
    "Silent": "progress",
    "TrainingConfig": "config",
    "TrainingReport": "outcome",
    "counting": "progress",
    "launched": "world",
    "train": "loop",
}
# Some of these load torch, and what only reads files must not.
__getattr__ = lazily(__name__, _HOMES)
