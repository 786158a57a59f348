"""Actors on Ray: images a second of one and of two on this machine, a killed actor, a killed driver, a billion images.

    python -m benchmarks.scale.actors --work DIR -o benchmarks/scale/actors.json

Time counts from the first shard that is done to the last, so that starting the cluster counts for nothing; the start is
given apart. `alone` is the same work without Ray, in one process with one thread, and `images_per_cpu_second` is what a
core does however busy the machine is. Then the verb runs with two actors: one is killed with -9, a while later the
driver is, and the same command goes on. Tables are compared byte by byte with those that were made alone.
"""

import argparse
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.records import text, write
from benchmarks.scale.running import environment, verb
from benchmarks.scale.sets import write_model, write_parquet

SIDE, SHARDS = 28, 12
PATIENCE = 600
"""Seconds that actors may take to start: other work on the machine is no failure of theirs."""


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


def equal_tables(out: Path, whole: Path) -> int:
    """Tables that have the bytes of those that were made alone."""
    tables = sorted(whole.glob("*.csv"))
    return sum((out / each.name).exists() and (out / each.name).read_bytes() == each.read_bytes() for each in tables)


def wait_for_tables(out: Path, count: int, driver: "subprocess.Popen[bytes]", seconds: float = 600) -> int:
    """Until so many tables are there; the number that is."""
    until = time.monotonic() + seconds
    while (found := len(list(out.glob("*.csv")))) < count:
        if driver.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{found} tables where {count} were awaited; the driver ended with {driver.poll()}")
        time.sleep(0.02)
    return found


def actors_of(driver: int) -> list[int]:
    """The processes below this driver in which actors score."""
    parent = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parent[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    below = {driver}
    while more := {child for child, of in parent.items() if of in below} - below:
        below |= more
    return sorted(child for child in below if b"ray::_Actor" in Path(f"/proc/{child}/cmdline").read_bytes())


def killed(command: list[str], out: Path, whole: Path) -> dict[str, Any]:
    """An actor and then the driver killed with -9, and the same command given again."""
    shutil.rmtree(out, ignore_errors=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        record: dict[str, Any] = {"tables_when_an_actor_was_killed": wait_for_tables(out, 1, driver)}
        actors = actors_of(driver.pid)
        os.kill(actors[0], signal.SIGKILL)
        wait_for_tables(out, SHARDS // 2, driver)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    record |= {"actors": len(actors), "tables_when_the_driver_was_killed": len(list(out.glob("*.csv")))}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = sum(table.read_bytes().count(b"\n") - 1 for table in out.glob("*.csv"))
    return {**record, "tables": len(list(out.glob("*.csv"))), "rows": rows, "equal_tables": equal_tables(out, whole)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2_000, help="in each of 12 shards")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    environment(1)
    os.environ["RAY_worker_register_timeout_seconds"] = str(PATIENCE)  # noqa: SIM112 (as Ray spells it)
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

    from dracones.distributed import on_ray as room
    from dracones.distributed.on_ray import on_ray
    from dracones.distributed.shards import plan
    from dracones.images import open_images

    torch.set_num_threads(1)
    room._START_SECONDS = PATIENCE
    todo = plan(str(shards), 1, open_images).shards
    record: dict[str, Any] = {**provenance(), "image": f"{SIDE}x{SIDE} gray PNG", "images": SHARDS * arguments.images}
    record["bytes_an_image"] = sum(path.stat().st_size for path in shards.glob("*")) / record["images"]
    whole = work / "alone"
    alone, cpu = scorer(whole, model), time.process_time()
    record["alone"] = rate(((shard, alone.score(shard)) for shard in todo), arguments.images)
    record["alone"]["images_per_cpu_second"] = record["images"] / (time.process_time() - cpu)
    for workers in (1, 2):
        out = work / f"out{workers}"
        shutil.rmtree(out, ignore_errors=True)
        done = on_ray(todo, model, partial(scorer, out), address="local", workers=workers)
        record[f"actors{workers}"] = {**rate(done, arguments.images), "equal_tables": equal_tables(out, whole)}
        print(text(record), flush=True)
    command = verb("score", model, shards, "--shards", work / "killed", "--ray", "local", "--workers", 2)
    record["killed"] = killed(command, work / "killed", whole)
    write(arguments.output, record)


if __name__ == "__main__":
    main()
