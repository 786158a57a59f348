"""Race against anomalib: same weights, images, epochs, batch, threads; one after the other in one run.

    DRACONES_TEST_DATA=... python benchmarks/inspection/race.py --out results/race.json

The peer gets an environment of its own under --work, made on the first run (`uv`, several gigabytes). Both sides start
cold. The time that counts is CPU seconds, because other processes may share the machine; wall seconds are recorded too.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from run import machine
from sets import data_root, unpacked

HERE = Path(__file__).parent
PEER = "anomalib==2.7.0"


def peer_python(work: Path) -> Path:
    """The peer's interpreter; its environment is made where there is none."""
    folder = work / "peer-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "--python", "3.11", str(folder)], check=True)
        subprocess.run(["uv", "pip", "install", "--python", str(python), PEER], check=True)
    return python


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


def run(command: list[str]) -> dict[str, Any]:
    """The result line of one side."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(line.removeprefix("RESULT "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["fastflow", "cflow"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train", type=int, default=96)
    parser.add_argument("--test", type=int, default=10, help="images of each kind")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "race.json")
    arguments = parser.parse_args()
    root = fewer(unpacked("screw", arguments.work), arguments.work / "race", arguments.train, arguments.test)
    weights = str(data_root() / "backbones" / "resnet18_tv_layer123_fp16.safetensors")
    peer = peer_python(arguments.work)
    common = [str(root), weights, str(arguments.epochs), str(arguments.threads)]
    results = []
    for method in arguments.methods:
        sides = {
            "anomalib": [str(peer), str(HERE / "peer" / "fit.py"), method, *common],
            "dracones fp32": [sys.executable, str(HERE / "ours.py"), method, *common, "fp32"],
            "dracones bf16": [sys.executable, str(HERE / "ours.py"), method, *common, "bf16"],
        }
        for side, command in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                place = len(command) - (1 if side.startswith("dracones") else 0)
                found = run([*command[:place], folder, *command[place:]])
            scores, labels = found.pop("scores"), found.pop("labels")
            from dracones.metrics import auroc

            found["image_auroc"] = float(auroc(scores, labels))
            found = {key: round(value, 3) for key, value in found.items()}
            results.append({"method": method, "side": side, **found})
            print(json.dumps(results[-1]), flush=True)
    about = {"epochs": arguments.epochs, "train_images": arguments.train, "peer": PEER, "batch": 32, **machine()}
    about["threads"] = arguments.threads
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
