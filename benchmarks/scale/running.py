"""A verb as a process: its time, its memory as it goes, its death."""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any


def verb(*arguments: object) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "dracones", *map(str, arguments)]


def watched(command: list[str]) -> dict[str, Any]:
    """Run to the end: wall and CPU seconds, and the most memory that the system counted."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said.read()[-2000:]!r}")
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "highest_mib": used.ru_maxrss / 1024,
    }


def environment(threads: int) -> None:
    """Have this process's children use so many threads in every library."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
