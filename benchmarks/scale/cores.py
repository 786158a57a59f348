"""One core against two: small PNG files scored by one thread, by two threads, and by two processes, turn about.

    python -m benchmarks.scale.cores --work DIR -o benchmarks/scale/cores.json

What `dracones score` does once its model is loaded, by the same functions: loading counts for none, the start of the
second process for two. Wall time says how much faster two are, where the machine is idle; CPU time says what they cost.
`load` is that of the machine before each turn; `rows` is a hash of all rows.
"""

import argparse
import hashlib
import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.records import text, write
from benchmarks.scale.sets import write_folder, write_model

SIDE = 28
WAYS = {"one": (1, 1), "threads": (1, 2), "processes": (2, 1)}
"""Processes, and threads of each."""


def cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def turn(way: str, detector: Any, images: Any, task: Any) -> dict[str, Any]:
    """All images once."""
    import torch

    from dracones.cli.score_processes import helpers_for
    from dracones.distributed.table import fill, rows_kept

    processes, threads = WAYS[way]
    torch.set_num_threads(threads)
    load, wall, cpu = os.getloadavg()[0], time.perf_counter(), cpu_seconds()
    with rows_kept(None, {}, resume=False) as journal:
        with helpers_for(task, None, processes) as helpers:
            tally = fill(detector, images, journal, batch_size=task.batch_size, helpers=helpers)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        rows = hashlib.file_digest(journal.path.open("rb"), "sha256").hexdigest()[:16]
    return {"way": way, "images": tally.scored, "seconds": wall, "cpu_seconds": cpu, "load": load, "rows": rows}


def times_as_fast(turns: list[dict[str, Any]], way: str, what: str) -> float:
    """How many times less of `what` a way takes than one thread, the median over turns side by side."""
    one, other = ([each[what] for each in turns if each["way"] == name] for name in ("one", way))
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    # Read before any thread is started.
    os.environ["OMP_NUM_THREADS"] = "2"
    arguments.work.mkdir(parents=True, exist_ok=True)
    import dracones
    from dracones.cli.score_processes import Task
    from dracones.distributed.table import facts_of

    model = arguments.work / "tiny28.safetensors"
    if not model.exists():
        write_model(model, SIDE, preset="tiny")
    folder = arguments.work / f"png{arguments.images}"
    if not folder.exists():
        write_folder(folder, arguments.images, SIDE)
    detector = dracones.load(model)
    task = Task(model, str(folder), {"strict": False}, None, None, arguments.batch_size, {})
    images = task.open(detector)
    task = task._replace(facts=facts_of(model, images))
    turn("one", detector, images.subset(range(128)), task)
    turns: list[dict[str, Any]] = []
    record: dict[str, Any] = {**provenance(threads=2), "image": f"{SIDE}x{SIDE} gray PNG", "turns": turns}
    for _ in range(arguments.repeats):
        for way in WAYS:
            turns.append(turn(way, detector, images, task))
            print(text(turns[-1]), flush=True)
    record["ways"] = {
        way: {
            "times_as_fast": times_as_fast(turns, way, "seconds"),
            "cpu_to_one": 1 / times_as_fast(turns, way, "cpu_seconds"),
        }
        for way in ("threads", "processes")
    }
    record["equal_rows"] = len({each["rows"] for each in turns}) == 1
    write(arguments.output, record)


if __name__ == "__main__":
    main()
