"""Memory of `dracones score` by the number of images: in an array's file, a Parquet file and a folder.

    python -m benchmarks.scale.memory --work DIR -o benchmarks/scale/memory.json

Each row is one process: the most resident memory that the system counted for it, libraries and all. The images are made
in another one: what the parent ever held counts for its children too.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.records import text, write
from benchmarks.scale.running import environment, verb, watched
from benchmarks.scale.sets import write_array, write_folder, write_model, write_parquet

SIDE = 8


def measure(work: Path, kind: str, count: int) -> dict[str, Any]:
    model = work / "least.safetensors"
    if not model.exists():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            apart.submit(write_model, model, SIDE, preset="least").result()
    data, make = {
        "array": (work / f"{count}.npy", write_array),
        "parquet": (work / f"{count}.parquet", write_parquet),
        "folder": (work / f"folder{count}", write_folder),
    }[kind]
    if not data.exists():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            apart.submit(make, data, count, SIDE).result()
    table = work / f"{kind}{count}.csv"
    found = watched(verb("score", model, data, "-o", table, "--batch-size", 256, "--threads", 1))
    with table.open() as file:
        rows = sum(1 for _ in file) - 1
    if rows != count:
        raise RuntimeError(f"{table} has {rows} rows for {count} images")
    table.unlink()
    return {"source": kind, "images": count, **found, "images_per_cpu_second": count / found["cpu_seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the images (2 GB for the full run)")
    parser.add_argument("--array", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--parquet", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--folder", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    environment(1)
    arguments.work.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {**provenance(), "image": f"{SIDE}x{SIDE} gray", "runs": []}
    for kind, counts in (
        ("array", arguments.array),
        ("parquet", arguments.parquet),
        ("folder", arguments.folder),
    ):
        for count in counts:
            record["runs"].append(measure(arguments.work, kind, count))
            print(text(record["runs"][-1]), flush=True)
            write(arguments.output, record)


if __name__ == "__main__":
    main()
