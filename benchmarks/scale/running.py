"""A verb as a process: its time, its memory as it goes, its death."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def verb(*arguments: object) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "dracones", *map(str, arguments)]


def resident(pid: int) -> float:
    """MiB in memory now; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def watched(command: list[str], *, every: float = 0.5) -> dict[str, Any]:
    """Run to the end: wall and CPU seconds, and the highest memory seen."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    highest = 0.0
    while process.poll() is None:
        highest = max(highest, resident(process.pid))
        time.sleep(every)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {process.stderr.read()[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - started, "cpu_seconds": cpu, "highest_mib": highest}


def environment(threads: int) -> None:
    """Have this process's children use so many threads in every library."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
