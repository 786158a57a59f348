"""What every result carries: commit, machine, versions, duration."""

import platform
import subprocess
import time
from pathlib import Path
from typing import Any


def provenance(started: float, cpu_started: float) -> dict[str, Any]:
    """Commit, machine, versions and how long it took since the two clocks were read."""
    import torch

    root = Path(__file__).parents[2]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "commit": commit.stdout.strip(),
        "machine": f"{cpu}, {platform.system()}, {torch.get_num_threads()} thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu_started, 1),
    }
