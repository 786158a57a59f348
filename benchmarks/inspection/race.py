"""Race against anomalib: same weights, images, epochs, batch, threads; one after the other in one run.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.race --out results/race.json

The peer gets an environment of its own, made on the first run (several gigabytes). Both sides start
cold, with their libraries imported before the clock. With one thread the time that counts is CPU seconds, because
other processes may share the machine; wall seconds are recorded too, and the load before each side.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.inspection.sets import data_root, unpacked
from benchmarks.peers import environment, measured
from benchmarks.provenance import commit, provenance
from benchmarks.records import read, write

HERE = Path(__file__).parent
PEER = "anomalib==2.7.0"


def fewer(root: Path, target: Path, train: int, test: int) -> Path:
    """The first images of each part, so that a race takes minutes: every nth file of train and of test."""
    shutil.rmtree(target, ignore_errors=True)
    for folder, count in [(root / "train" / "good", train), *((f, test) for f in sorted((root / "test").iterdir()))]:
        files = sorted(folder.iterdir())
        chosen = files[:: max(1, len(files) // count)][:count]
        goal = target / folder.relative_to(root)
        goal.mkdir(parents=True)
        for file in chosen:
            shutil.copy(file, goal / file.name)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["fastflow", "cflow", "csflow"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", type=int, default=96)
    parser.add_argument("--test", type=int, default=10, help="images of each kind")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "race.json")
    arguments = parser.parse_args()
    root = fewer(unpacked("screw", arguments.work), arguments.work / "race", arguments.train, arguments.test)
    weights = str(data_root() / "backbones" / "resnet18_tv_layer123_fp16.safetensors")
    peer = environment("inspection", [PEER])
    common = [str(root), weights, str(arguments.epochs), str(arguments.threads)]
    results = kept(arguments)
    for method in arguments.methods:
        sides = {
            "anomalib": [peer, str(HERE / "peer" / "fit.py"), method, *common],
            "dracones fp32": [sys.executable, str(HERE / "ours.py"), method, *common, "fp32"],
            "dracones bf16": [sys.executable, str(HERE / "ours.py"), method, *common, "bf16"],
        }
        for side, command in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                place = len(command) - (1 if side.startswith("dracones") else 0)
                load = os.getloadavg()[0]
                found = measured([*command[:place], folder, *command[place:]], threads=arguments.threads)
            scores, labels = found.pop("scores"), found.pop("labels")
            from dracones.metrics import auroc

            found["image_auroc"] = float(auroc(scores, labels))
            found = {key: round(value, 3) for key, value in found.items()}
            batch = 16 if method == "csflow" else 32
            about = {"method": method, "side": side, "batch": batch, "load_before": round(load, 2)}
            results.append({**about, "commit": commit(), **found})
            print(json.dumps(results[-1]), flush=True)
            keep(arguments, results)


def kept(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of methods that are not raced now, from a race of the same length: all sides of one method go together."""
    if not arguments.out.exists():
        return []
    before = read(arguments.out)
    same = (before["epochs"], before["train_images"], before["threads"]) == (
        arguments.epochs,
        arguments.train,
        arguments.threads,
    )
    return [row for row in before["results"] if same and row["method"] not in arguments.methods]


def keep(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """All that is known so far: a long race that is cut off leaves what it has."""
    about = {"epochs": arguments.epochs, "train_images": arguments.train, "peer": PEER, "batch": 32}
    write(arguments.out, {**about, **provenance(threads=arguments.threads), "results": results})


if __name__ == "__main__":
    main()
