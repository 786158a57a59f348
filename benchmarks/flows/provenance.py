"""What every record says of itself: commit, machine, torch, date."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

HERE = Path(__file__).parent


def provenance() -> dict[str, str]:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=True).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    return {
        "commit": commit,
        "machine": f"{model}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f} at the start)",
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def footer(record: dict, script: str) -> str:
    what = ", ".join(str(record[key]) for key in ("machine", "date"))
    return (
        f"Commit {record['commit']}, torch {record['torch']}, {what}, {record['seconds'] / 60:.0f} minutes.\n"
        f"Made by `benchmarks/flows/{script}`."
    )
