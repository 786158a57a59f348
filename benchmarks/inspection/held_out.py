"""Held-out likelihood of normal images after each epoch: what settings of training are chosen by, without a defect.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.held_out cflow screw '{"epochs": 5, "chunks": 64}'

Fits a method with a tenth of the good training images held out; prints a line of JSON: the options, the loss on the
held-out images after each epoch (the method's own loss, smaller is better), and CPU seconds in all.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

import dracones
from benchmarks.inspection.entries import METHODS, options
from benchmarks.inspection.sets import SETS, unpacked
from dracones.images import MvtecLayout


class Losses:
    """A progress that keeps the validation losses it is told of."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def start(self, total: int | None, what: str) -> None:
        """Nothing to do."""

    def advance(self, n: int = 1, **numbers: float) -> None:
        """Keep a validation loss."""
        del n
        if "validation_loss" in numbers:
            self.found.append(round(float(numbers["validation_loss"]), 5))

    def finish(self) -> None:
        """Nothing to do."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("set", choices=SETS)
    parser.add_argument("options", help="JSON of options that differ from the entry")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("DRACONES_CACHE", str(arguments.work / "cache"))
    asked = json.loads(arguments.options)
    losses = Losses()
    chosen = {**options(arguments.method, "resnet18", arguments.seed), "validation_share": 0.1, **asked}
    started = time.process_time()
    dracones.create(arguments.method, **chosen).fit(
        MvtecLayout(unpacked(arguments.set, arguments.work)).train, progress=losses
    )
    seconds = round(time.process_time() - started, 1)
    found = {"method": arguments.method, "set": arguments.set, "options": asked, "losses": losses.found}
    print(json.dumps({**found, "cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
