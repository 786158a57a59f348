"""What one damaged file cost: CPU seconds, and by how much the process grew while it was looked at."""

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SECONDS = 5.0
"""More CPU seconds than these for one file are *slow*."""


@dataclass
class Effort:
    """CPU seconds and megabytes, known when the block has ended."""

    seconds: float = 0.0
    megabytes: float = 0.0

    def note(self, label: str, slow: list[str], greedy: list[str], *, megabytes: float) -> None:
        """List the file where it took too long or grew the process by more than `megabytes`."""
        if self.seconds > SECONDS:
            slow.append(f"{label} ({self.seconds:.1f} s)")
        if self.megabytes > megabytes:
            greedy.append(f"{label} ({self.megabytes:.0f} MB)")


@contextlib.contextmanager
def effort() -> Iterator[Effort]:
    """Watch a block. The mark of highest memory is set back first where the system can, so no file hides another's."""
    with contextlib.suppress(OSError):
        _FORGET.write_text("5")
    found, started, before = Effort(), time.process_time(), peak_megabytes()
    try:
        yield found
    finally:
        found.seconds, found.megabytes = time.process_time() - started, peak_megabytes() - before


def peak_megabytes() -> float:
    """The highest resident memory since the mark was last set back (Linux), or since the process began."""
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        kibibytes = next((line.split()[1] for line in lines if line.startswith("VmHWM")), None)
        if kibibytes is not None:
            return int(kibibytes) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
