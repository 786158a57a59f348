"""A model file looked at without loading it: what it is, and what is wrong with it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dracones.detectors.contents import compared, header_of, hollow_method, naming, record_of
from dracones.files import storage
from dracones.files.storage import StoredDetector
from dracones.methods import method_class


@dataclass(frozen=True)
class Check:
    """One question put to a file.

    Attributes:
        name: what was looked at.
        passed: whether it is as it should be.
        detail: what was found, or what is wrong.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Verification:
    """All that was looked at, in order; after the first failure nothing further can be.

    Attributes:
        path: the file.
        digest: of the model, as it was saved; ``None`` where none can be read.
        checks: what was looked at.
    """

    path: Path
    digest: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> Mapping[str, Any]:
        """Numbers and words."""
        checks = [asdict(check) for check in self.checks]
        return {"model": str(self.path), "passed": self.passed, "digest": self.digest, "checks": checks}


def verify(path: str | Path, **runtime: Any) -> Verification:
    """Look at a model file: layout and format, digests, header, tensors against the method, calibration.

    In constant memory. A guard's tensors are compared with its classifier where one is given; nothing is scored.

    Args:
        path: the file.
        runtime: objects that a file cannot hold, such as the ``classifier`` that a guard wraps.

    Raises:
        FileNotFoundError: no such file.
    """
    path, checks = Path(path), list[Check]()
    try:
        with storage.opened(path) as stored:
            checks.append(Check("format", True, f"format {storage.FORMAT}, {len(stored.table.places)} tensors"))
            for name, question in _questions(stored, runtime).items():
                checks.append(Check(name, True, question()))
            return Verification(path, stored.digests.model, tuple(checks))
    except ValueError as error:
        names = ("format", *_NAMES)
        failed = Check(names[len(checks)], False, str(error))
        return Verification(path, None, (*checks, failed))


_NAMES = ("digest", "header", "method", "calibration")


def _questions(stored: StoredDetector, runtime: Mapping[str, Any]) -> dict[str, Callable[[], str]]:
    def digest() -> str:
        stored.verify()
        return stored.digests.model

    def header() -> str:
        with naming(stored.path):
            found = header_of(stored)
        return f"{found.method} for images of {'x'.join(map(str, found.image_shape))}"

    def method() -> str:
        with naming(stored.path):
            found = header_of(stored)
            if "classifier" in method_class(found.method).info.needs and not runtime:
                return "guards a classifier, which was not given: its tensors were not compared with it"
            built = hollow_method(found, stored, **runtime)
            names = compared(built, stored)
        return f"{len(names)} tensors, {stored.table.bytes / 1024**2:.3g} MB, as this version builds it"

    def calibration() -> str:
        with naming(stored.path):
            record = record_of(header_of(stored), stored)
        if record.groups is not None and record.groups.thresholds:
            return (
                f"{len(record.calibration)} scores promise at most {record.false_alarm_rate:.2%} false alarms in each "
                f"of {len(record.groups.names)} groups"
            )
        if record.threshold is None:
            return f"{len(record.calibration)} scores, no threshold"
        return (
            f"{len(record.calibration)} scores promise at most {record.false_alarm_rate:.2%} false alarms above "
            f"{record.threshold:.6g}"
        )

    return dict(zip(_NAMES, (digest, header, method, calibration), strict=True))
