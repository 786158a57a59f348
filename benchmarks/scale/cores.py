"""One core against two: `Detector.stream` over small PNG files with one thread and with two, turn about.

    python -m benchmarks.scale.cores --work DIR -o benchmarks/scale/cores.json

In one process, so that loading counts for neither. Wall time says how much faster two are, where the machine is idle;
CPU time says whether threads wait busily. `load` is that of the machine before each turn.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.records import text, write
from benchmarks.scale.sets import write_folder, write_model

SIDE = 28


def turn(detector: Any, images: Any, threads: int, batch_size: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    load, wall, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
    scored = sum(len(block) for block in detector.stream(images, batch_size=batch_size))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"threads": threads, "images": scored, "seconds": wall, "cpu_seconds": cpu, "load": load}


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
    from dracones.images import open_images

    model = arguments.work / "tiny28.safetensors"
    if not model.exists():
        write_model(model, SIDE, preset="tiny")
    folder = arguments.work / f"png{arguments.images}"
    if not folder.exists():
        write_folder(folder, arguments.images, SIDE)
    detector = dracones.load(model)
    images = detector.adopt(open_images(str(folder)))
    turn(detector, images.subset(range(128)), 2, arguments.batch_size)
    record: dict[str, Any] = {**provenance(threads=2), "image": f"{SIDE}x{SIDE} gray PNG", "turns": []}
    for _ in range(arguments.repeats):
        for threads in (1, 2):
            record["turns"].append(turn(detector, images, threads, arguments.batch_size))
            print(text(record["turns"][-1]), flush=True)
    one, two = ([each for each in record["turns"] if each["threads"] == threads] for threads in (1, 2))
    pairs = list(zip(one, two, strict=True))
    record["times_as_fast"] = statistics.median(a["seconds"] / b["seconds"] for a, b in pairs)
    record["cpu_of_two_to_one"] = statistics.median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs)
    write(arguments.output, record)


if __name__ == "__main__":
    main()
