"""Time to quality: CPU seconds until the peer's final AUROC is reached, and until ours is, on one category.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.quality

anomalib's FastFlow as its documentation runs it, our FastFlow with its own defaults, and the default method, which
trains nothing: the same backbone, images and thread. Each number of epochs is a run of its own, so that a schedule is
run to its end; all test images of the category are scored, and none chooses anything. A side has reached its final
quality in the first run within TOLERANCE of its longest.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.inspection.race import HERE, PEER, fewer
from benchmarks.inspection.sets import SETS, data_root, unpacked
from benchmarks.peers import environment, measured
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.metrics import auroc

TOLERANCE = 0.01
_ALL = 1000  # more test images of a kind than there are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="screw")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 6, 12])
    parser.add_argument("--train", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--out", type=Path, help="default: results/quality_SET.json")
    arguments = parser.parse_args()
    out = arguments.out or HERE / "results" / f"quality_{arguments.set}.json"
    place = arguments.work / f"quality-{arguments.set}"
    root = fewer(unpacked(arguments.set, arguments.work), place, arguments.train, _ALL)
    weights = str(data_root() / "backbones" / "resnet18_tv_layer123_fp16.safetensors")
    peer, ours = environment("inspection", [PEER]), str(HERE / "ours.py")
    rows: list[dict[str, Any]] = []
    plan = [("dracones ensemble", 0), *((side, k) for k in arguments.epochs for side in ("dracones", "anomalib"))]
    for side, epochs in plan:
        method = "ensemble" if epochs == 0 else "fastflow"
        with tempfile.TemporaryDirectory() as folder:
            common = [method, str(root), weights, str(epochs), "1", folder]
            if side == "anomalib":
                found = measured([peer, str(HERE / "peer" / "fit.py"), *common])
            else:
                found = measured([sys.executable, ours, *common, "auto", "default"])
        row = {
            "side": side,
            "epochs": epochs,
            "fit_cpu_seconds": round(found["fit_cpu_seconds"], 1),
            "image_auroc": round(float(auroc(found["scores"], found["labels"])), 4),
            "test_images": found["images"],
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
        about = {"peer": PEER, "set": arguments.set, "backbone": "resnet18", "train_images": arguments.train}
        write(out, {**about, "tolerance": TOLERANCE, **reached(rows), **provenance(threads=1), "rows": rows})


def reached(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU seconds to each side's own final AUROC, and of ours to the peer's; nothing where it is not reached."""
    sides = {side: [row for row in rows if row["side"] == side] for side in {row["side"] for row in rows}}
    final = {side: every[-1]["image_auroc"] for side, every in sides.items()}
    own = {side: _first(every, final[side] - TOLERANCE) for side, every in sides.items()}
    theirs = {side: _first(every, final["anomalib"]) for side, every in sides.items()} if "anomalib" in final else {}
    return {"final_auroc": final, "cpu_seconds_to_own_final": own, "cpu_seconds_to_final_of_peer": theirs}


def _first(rows: list[dict[str, Any]], wanted: float) -> float | None:
    return next((row["fit_cpu_seconds"] for row in rows if row["image_auroc"] >= wanted), None)


if __name__ == "__main__":
    main()
