"""A model file in service: loaded and checked, and loaded anew when the file has changed."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from dracones.calibration import Groups, HeatRange, Verdict
from dracones.serving.batcher import Batcher, Job
from dracones.serving.judging import judge, trial_image
from dracones.serving.settings import Settings

Load = Callable[[Path], Any]


@dataclass(frozen=True)
class Loaded:
    """What is known of a model in service.

    Attributes:
        detector: `Detector` or `ExportedDetector`.
        sha256: of the file.
        calibration_scores: of normal images.
        seconds: that one image took.
        since: seconds since 1970.
    """

    detector: Any
    sha256: str
    calibration_scores: Sequence[float]
    seconds: float
    since: float

    @property
    def threshold(self) -> float | None:
        """Score above which an image is anomalous; ``None`` where each group has its own."""
        value: float | None = self.detector.threshold
        return value

    @property
    def groups(self) -> Groups | None:
        """Calibrations and thresholds of groups; ``None`` where there is one for all images."""
        value: Groups | None = getattr(self.detector, "groups", None)
        return value

    def threshold_of(self, group: str | None) -> float | None:
        """Score above which an image of a group is anomalous."""
        return self.threshold if self.groups is None else self.groups.thresholds.get(group or "")

    def calibrated_on(self, group: str | None) -> int:
        """How many images those of a group are compared with."""
        own = None if self.groups is None else self.groups.calibrations.get(group or "")
        return len(self.calibration_scores if own is None else own)

    @property
    def compared_with(self) -> Sequence[float] | dict[str, NDArray[Any]]:
        """Scores of normal images, those of each group where there are groups."""
        if self.groups is None:
            return self.calibration_scores
        return {name: each.scores for name, each in self.groups.calibrations.items()}

    @property
    def false_alarm_rate(self) -> float | None:
        """The rate promised for the threshold."""
        value: float | None = self.detector.false_alarm_rate
        return value

    @property
    def heat_range(self) -> HeatRange | None:
        """How hot maps of normal images are."""
        value: HeatRange | None = self.detector.heat_range
        return value


class Scored(NamedTuple):
    """A verdict, and the model that gave it: another may be in its place by now."""

    verdict: Verdict
    loaded: Loaded


class _Stamp(NamedTuple):
    inode: int
    size: int
    time: int


def read_model(path: Path, load: Load, *, without_threshold: bool = False) -> Loaded:
    """Load a file and let it score an image, before anybody relies on it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, foreign, without a threshold, or with scores that are no numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such model file: {path}")
    digest = _digest(path)
    detector = load(path)
    groups: Groups | None = getattr(detector, "groups", None)
    promises = detector.threshold is not None if groups is None else bool(groups.thresholds)
    if not promises and not without_threshold:
        raise ValueError(
            f"{path} has no threshold, so the service could say of no image that it is anomalous; set one with "
            f"`dracones calibrate {path} NORMAL_IMAGES`, or serve scores alone with --without-threshold"
        )
    image = trial_image(detector)
    for _ in range(2):  # the first pays for what is made once
        begun = time.monotonic()
        (found,) = judge(detector, [image], True, None if groups is None else groups.names[:1])
        seconds = time.monotonic() - begun
    if isinstance(found, Exception):
        raise ValueError(f"{path} cannot score: {found}") from found
    if math.isnan(found.score):
        raise ValueError(f"{path} cannot score: it gives NaN")
    if _digest(path) != digest:  # what was loaded would go by another file's hash
        raise ValueError(f"{path} changed while it was read")
    return Loaded(detector, digest, _calibration_scores(detector), seconds, time.time())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _calibration_scores(detector: Any) -> list[float]:
    if hasattr(detector, "facts"):
        return [float(score) for score in detector.facts["calibration"]["scores"]]
    return [float(score) for score in detector.calibration.scores]


class Served:
    """A name, its file, the model of the moment, and the thread that scores.

    Attributes:
        current: what scores now.
        coming: requests that were let in and have not brought their images yet.
        trouble: why the file that lies there now is not in service; ``None`` where it is.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        load: Load,
        settings: Settings,
        *,
        without_threshold: bool = False,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self.name, self.path = name, path
        self._load, self._without_threshold = load, without_threshold
        self._stamp = _stamp(path)
        self._seen = self._stamp
        self.current = read_model(path, load, without_threshold=without_threshold)
        self.coming = 0
        self.trouble: str | None = None
        self.batcher: Batcher[Scored] = Batcher(
            name,
            self._score,
            coming=lambda: self.coming,
            max_batch=settings.max_batch,
            max_wait=settings.max_wait,
            observe=observe,
        )
        self.batcher.learn(1, self.current.seconds)

    def _score(self, jobs: Sequence[Job[Scored]], maps: bool) -> list[Scored | Exception]:
        loaded = self.current  # one model for the whole batch, whatever is swapped meanwhile
        groups = None if loaded.groups is None else [job.group for job in jobs]
        found = judge(loaded.detector, [job.image for job in jobs], maps, groups)
        return [each if isinstance(each, Exception) else Scored(each, loaded) for each in found]

    def look(self) -> bool | None:
        """Load the file beside if it has changed, and swap; to be called away from the scoring thread.

        A file that is still being written changes between two looks and is left for the next.

        Returns:
            ``True`` swapped, ``False`` a bad file whose place the old model keeps, ``None`` nothing new.
        """
        stamp = _stamp(self.path)
        settled, self._seen = stamp == self._seen, stamp
        if stamp == self._stamp or not settled:
            return None
        self._stamp = stamp
        try:
            loaded = read_model(self.path, self._load, without_threshold=self._without_threshold)
        except Exception as error:  # a file may be anything; the model in service stays
            self.trouble = f"{type(error).__name__}: {error}"
            return False
        self.trouble = None
        if loaded.sha256 == self.current.sha256:
            return None
        self.current = loaded
        return True


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
