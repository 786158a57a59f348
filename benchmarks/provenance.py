"""What every record says of itself: the commit, the machine and the versions that its figures belong to."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("dracones", "torch", "numpy")


def commit() -> str:
    """The full hash, marked where `src` differs from it; `BENCHMARK_COMMIT` names it for a copy that is no clone."""
    if "BENCHMARK_COMMIT" in os.environ:
        return os.environ["BENCHMARK_COMMIT"]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "HEAD") or "unknown") + (" with changes" if git("status", "--porcelain", "src") else "")


def machine() -> str:
    """The processor as the system names it, with what a figure most depends on."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
        flags = next((line for line in lines if line.startswith("flags")), "")
        name += ", AVX-512" if "avx512f" in flags else ", no AVX-512"
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def provenance(*, threads: int = 1) -> dict[str, Any]:
    """Commit, machine, threads, load, versions and date, flat, to stand in a record."""
    versions = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    return {
        "commit": commit(),
        "machine": machine(),
        "threads": threads,
        "load_at_start": round(os.getloadavg()[0], 1),
        **versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


class Stopwatch:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        """`seconds` and `cpu_seconds`."""
        wall, cpu = time.monotonic() - self.wall, time.process_time() - self.cpu
        return {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def footer(record: dict[str, Any], script: str) -> str:
    """The last lines of a page: where its figures come from; `script` is its path below `benchmarks/`."""
    return (
        f"Commit {record['commit'][:10]}, torch {record['torch']}, {record['machine']}, {record['date']}, "
        f"{record['seconds'] / 60:.0f} minutes.\nMade by `benchmarks/{script}`."
    )
