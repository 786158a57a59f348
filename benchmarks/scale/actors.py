"""Actors on Ray: images a second of one and of two, on this machine, and what that makes of a billion images.

    python -m benchmarks.scale.actors --work DIR -o benchmarks/scale/actors.json

Time counts from the first shard that is done to the last, so that starting the cluster counts for nothing; the start is
given apart. `alone` is the same work without Ray, in one process with one thread.
"""

import argparse
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.records import text, write
from benchmarks.scale.running import environment
from benchmarks.scale.sets import write_model, write_parquet

SIDE, SHARDS = 28, 12


def scorer(folder: Path, model: Path) -> Any:
    """What scores shards, here or in an actor."""
    from dracones.cli.models import load_model, open_data
    from dracones.distributed.shards import ShardScorer

    return ShardScorer(load_model(model), partial(open_data, model, strict=False), folder, ".csv", 32)


def rate(done: Any, images: int) -> dict[str, float]:
    """Images a second between the first shard and the last, and the seconds before the first."""
    started, load = time.monotonic(), os.getloadavg()[0]
    ends = [time.monotonic() for _, counts in done if counts["scored"] == images]
    if len(ends) != SHARDS:
        raise RuntimeError(f"{len(ends)} of {SHARDS} shards are whole")
    spent = ends[-1] - ends[0]
    return {"images_per_second": (SHARDS - 1) * images / spent, "first_shard_after": ends[0] - started, "load": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2_000, help="in each of 12 shards")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    environment(1)
    work = arguments.work
    shards = work / f"shards{arguments.images}"
    shards.mkdir(parents=True, exist_ok=True)
    for number in range(SHARDS):
        path = shards / f"{number:02}.parquet"
        if not path.exists():
            write_parquet(path, arguments.images, SIDE, seed=number)
    model = work / "tiny28.safetensors"
    if not model.exists():
        write_model(model, SIDE, preset="tiny")
    import torch

    from dracones.distributed.on_ray import on_ray
    from dracones.distributed.shards import plan
    from dracones.images import open_images

    torch.set_num_threads(1)
    todo = plan(str(shards), 1, open_images).shards
    record: dict[str, Any] = {**provenance(), "image": f"{SIDE}x{SIDE} gray PNG", "images": SHARDS * arguments.images}
    alone = scorer(work / "alone", model)
    record["alone"] = rate(((shard, alone.score(shard)) for shard in todo), arguments.images)
    for workers in (1, 2):
        out = work / f"out{workers}"
        shutil.rmtree(out, ignore_errors=True)
        done = on_ray(todo, model, partial(scorer, out), address="local", workers=workers)
        record[f"actors{workers}"] = rate(done, arguments.images)
        same = [
            (out / f"{each.name}.csv").read_bytes() == (work / "alone" / f"{each.name}.csv").read_bytes()
            for each in todo
        ]
        record[f"actors{workers}"]["equal_tables"] = sum(same)
        print(text(record), flush=True)
    write(arguments.output, record)


if __name__ == "__main__":
    main()
