"""The libraries raced against: environments of their own, and one measurement as one process.

A race's child is a single file that needs nothing of `benchmarks`, so that any interpreter runs it by its path.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def environment(name: str, packages: Sequence[str], *, beside_ours: bool = False, folder: Path | None = None) -> str:
    """The interpreter of an environment that has `packages`; made where there is none, else kept.

    It gets this environment's torch. `beside_ours` lets it see everything installed here, dracones too, and installs
    the packages without what they ask for: both libraries then run in one process. The folder, unless one is named,
    lies in the temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"dracones-peers-{name}"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = folder / "ready.json"
    wanted = list(packages) if beside_ours else [f"torch=={version('torch').split('+')[0]}", *packages]
    if ready.exists() and json.loads(ready.read_text()) == wanted:
        return str(python)
    uv = shutil.which("uv")
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
    subprocess.run([*make, str(folder)], check=True)
    if beside_ours:
        site = next(folder.glob("[Ll]ib/**/site-packages"))
        (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT / 'src'}\n")
    pip = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    subprocess.run([*pip, "--quiet", *(["--no-deps"] if beside_ours else []), *wanted], check=True)
    ready.write_text(json.dumps(wanted))
    return str(python)


def measured(command: Sequence[str], *, threads: int = 1) -> dict[str, Any]:
    """The JSON object in the last line that a process prints; `RuntimeError` with the end of its errors if it fails."""
    limits = dict.fromkeys(POOLS, str(threads))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **limits}, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
