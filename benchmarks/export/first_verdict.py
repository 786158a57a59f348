"""Runs where there is no torch: one exported file, its answers and its clock, as one line of JSON.

    python -I benchmarks/export/first_verdict.py FILE IMAGES STARTED

STARTED is `time.time()` as this process was started. It imports nothing of the benchmarks.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ABSENT = ("torch", "torchvision", "timm", "scipy", "pydantic")


class Clock:
    """Wall and CPU seconds spent in some calls."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                self.wall += time.perf_counter() - wall
                self.cpu += time.process_time() - cpu

        return timed


def main(file: str, images: str, started: float) -> None:
    """Load, judge the first image, stop the clock, judge the others."""
    from dracones import runtime
    from dracones.runtime.openvino import OpenVinoSession
    from dracones.runtime.session import Session

    making, network = Clock(), Clock()
    for kind in (Session, OpenVinoSession):
        kind.__init__ = making.around(kind.__init__)  # type: ignore[method-assign]
        kind.run = network.around(kind.run)  # type: ignore[method-assign]
    line = runtime.load(file)
    names = sorted(map(str, Path(images).iterdir()))
    next(line.iterate(names[:1]))
    found = {
        "seconds": time.time() - started,
        "cpu_seconds": time.process_time(),
        "session_seconds": making.wall,
        "session_cpu_seconds": making.cpu,
        "network_seconds": network.wall,
        "network_cpu_seconds": network.cpu,
    }
    verdicts = list(line.iterate(names, maps=False))
    found["scores"] = [verdict.score for verdict in verdicts]
    found["verdicts"] = [verdict.is_anomaly for verdict in verdicts]
    found["present"] = [name for name in ABSENT if find_spec(name) is not None]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
