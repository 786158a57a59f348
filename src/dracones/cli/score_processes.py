"""In how many processes `dracones score` scores, and what each of them is told."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dracones.cli.interest import within
from dracones.cli.models import is_exported, load_model, open_data, read_groups, use_threads_for
from dracones.cli.options import use_threads

_SMALL = 64 * 64
"""Pixels up to which a network's arithmetic is so short that threads of one process wait for its interpreter."""
_MANY = 5_000
"""Images whose scoring takes longer than a process takes to start."""
_AT_MOST = 8
"""Processes that are taken unasked: each holds the libraries and the model."""


class Task(NamedTuple):
    """What a process has to know to score places of DATA as every other does."""

    model: Path
    data: str
    reading: Mapping[str, Any]
    roi: Path | None
    group: str | None
    batch_size: int
    facts: Mapping[str, Any]

    def open(self, detector: Any) -> Any:
        """The images of DATA as they are scored."""
        images = open_data(self.model, self.data, **self.reading)
        return detector.adopt(within(self.model, detector, images, self.roi))


def refuse_processes(
    processes: int | None, *, threads: int | None, device: str | None, ray: str | None, in_one: bool
) -> None:
    """Refuse what several processes do not do.

    Raises:
        ValueError: says what to leave out.
    """
    if processes is None or processes == 1:
        return
    if ray is not None:
        raise ValueError("--processes are of this machine; with --ray, --workers says how many score")
    if device not in (None, "cpu"):
        raise ValueError("--processes share out processor cores; leave out --device")
    if threads is not None and threads > 1:
        raise ValueError(f"--processes {processes} compute with a thread each; leave out --threads")
    if in_one:
        raise ValueError("--maps, --masks and --regions are drawn in one process; leave out --processes")


def processes_that_win(detector: Any, count: int) -> int:
    """As many as there are threads, 8 at most, where 5,000 images or more of at most 64 x 64 pixels are left; else 1.

    Larger networks compute long enough in one call that threads of one process are as fast, and hold the model once.
    """
    from dracones.runtime import ExportedDetector

    if isinstance(detector, ExportedDetector):  # looked at first: where there is one, there may be no torch
        return 1
    from dracones.detectors import Detector

    if not isinstance(detector, Detector) or detector.tiling is not None or not detector.method.scores_in_threads:
        return 1
    import torch

    _, height, width = detector.fitted().image_shape
    if detector.method.device.type != "cpu" or height * width > _SMALL or count < _MANY:
        return 1
    return min(torch.get_num_threads(), _AT_MOST)


def helpers_for(task: Task, classifier: str | None, processes: int) -> AbstractContextManager[Any]:
    """The processes beside this one, which from here on computes with one thread as they do; ``None`` for none."""
    if processes == 1:
        return nullcontext()
    from dracones.distributed.processes import Helpers

    if not is_exported(task.model):
        use_threads(1)
    return Helpers(partial(_answering, task, classifier), processes - 1, partial(_named, task))


def _named(task: Task, places: range) -> str:
    return f"images {places.start + 1} to {places.stop} of {task.data}"


def _answering(task: Task, classifier: str | None) -> Any:
    """What a process beside the first scores with: the same model and list, or none."""
    from dracones.distributed.table import answering, facts_of

    use_threads_for(task.model, 1)
    detector = load_model(task.model, classifier=classifier)
    images = task.open(detector)
    found = facts_of(task.model, images)
    changed = [name for name, value in found.items() if task.facts[name] != value]
    if changed:
        raise ValueError(f"{task.data} or {task.model} changed while they were opened ({', '.join(changed)})")
    return answering(detector, images, batch_size=task.batch_size, groups=read_groups(task.group))
