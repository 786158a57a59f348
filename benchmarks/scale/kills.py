"""Twenty `kill -9` at random moments: a table and a folder of shards against those of an undisturbed run.

    python -m benchmarks.scale.kills --work DIR -o benchmarks/scale/kills.json

Each run of `dracones score` is killed after a random time and given again, until it has been killed so often; then it
is left to end, and its bytes are compared. Runs are forked from a process that has imported everything, so that they
spend their time on what is to be interrupted; a killed fork is as dead as any process.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance
from benchmarks.records import text, write
from benchmarks.scale.running import environment
from benchmarks.scale.sets import write_model, write_parquet

SIDE = 8


def rows_in(place: Path) -> int:
    """Rows on disk so far: of the journal, or of the tables of shards."""
    if place.is_dir():
        return sum(path.read_bytes().count(b"\n") - 1 for path in place.rglob("*.csv"))
    journal = place.with_name(place.name + ".unfinished")
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0


def started(command: list[str]) -> int:
    """A fork that runs the command and ends as it does."""
    child = os.fork()
    if child:
        return child
    from dracones.cli import main as verb

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.argv = ["dracones", *command]
    code = 70
    try:
        verb()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def ended(command: list[str]) -> None:
    """Run to the end."""
    _, status = os.waitpid(started(command), 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")


def killed(command: list[str], place: Path, kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Start and kill until it was killed so often while rows were being written."""
    found: list[dict[str, Any]] = []
    while len(found) < kills:
        before = rows_in(place)
        child = started(command)
        # Loading the model comes first: wait for a new row, then for a random moment.
        while rows_in(place) <= before and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise RuntimeError(f"the run ended after {len(found)} kills: use more images")
        found.append({"rows_before": before, "rows_after": rows_in(place)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10, help="of the table, and as many of the shards")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    environment(1)
    work, images = arguments.work, arguments.images
    (work / "shards").mkdir(parents=True, exist_ok=True)
    model = write_model(work / "least.safetensors", SIDE, preset="least")
    for number in range(40):
        path = work / "shards" / f"{number:02}.parquet"
        if not path.exists():
            write_parquet(path, images // 40, SIDE, seed=number)
    draw = random.Random(0)
    record: dict[str, Any] = {**provenance(), "images": images // 40 * 40}
    import torch

    import dracones

    torch.set_num_threads(1)
    next(dracones.load(model).iterate(str(work / "shards" / "00.parquet")))
    base = ["score", str(model), str(work / "shards"), "--batch-size", "64", "--threads", "1"]
    for what, where, place, more in (
        ("table", "-o", "table.csv", ["--resume"]),
        ("shards", "--shards", "tables", []),
    ):
        whole, cut = work / f"whole-{place}", work / f"cut-{place}"
        ended([*base, where, str(whole)])
        command = [*base, where, str(cut), *more]
        record[what] = {"kills": killed(command, cut, arguments.kills, draw)}
        ended(command)
        pairs = [(whole, cut)] if what == "table" else [(p, cut / p.relative_to(whole)) for p in whole.rglob("*.csv")]
        record[what]["files"] = len(pairs)
        record[what]["equal"] = sum(one.read_bytes() == other.read_bytes() for one, other in pairs)
        print(what, text(record[what]), flush=True)
        write(arguments.output, record)


if __name__ == "__main__":
    main()
