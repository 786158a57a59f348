"""What the ensemble costs beside each of its witnesses alone: CPU seconds to fit and to score, interleaved.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.cost

The same images, all learnt from on every side (the ensemble's held-out fifth last), the same backbone and memory; no
cache of features, so that each side pays for its pass of the backbone. Writes medians over rounds and the ratio to
the dearest witness.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import dracones
from benchmarks.inspection.entries import options
from benchmarks.inspection.race import fewer
from benchmarks.inspection.sets import SETS, unpacked
from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import write
from dracones.images import MvtecLayout

HERE = Path(__file__).parent
SIDES: dict[str, dict[str, Any]] = {
    "ensemble": {},
    "patchcore": {"memory_share": 0.02},
    "padim": {"levels": (2, 3)},
    "embedding_flow": {"levels": (3,), "scales": 3, "pooling": ("mean", "max", "std"), "couplings": 0},
}


def measured(method: str, backbone: str, layout: MvtecLayout) -> dict[str, float]:
    """CPU seconds of one fit and of scoring the test images, maps included."""
    chosen = {**options(method, backbone, 0), **SIDES[method], "cache": False}
    detector = dracones.create(method, **chosen)
    started = time.process_time()
    detector.fit(layout.train)
    fitted = time.process_time()
    for _ in detector.iterate(layout.test, batch_size=8):
        pass
    return {"fit": fitted - started, "score": time.process_time() - fitted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="screw")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--train", type=int, default=64)
    parser.add_argument("--test", type=int, default=6, help="images of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--out", type=Path, help="default: results/cost_IMAGES.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("DRACONES_CACHE", str(arguments.work / "cache"))
    root = fewer(unpacked(arguments.set, arguments.work), arguments.work / "cost", arguments.train, arguments.test)
    layout, clock = MvtecLayout(root), Stopwatch()
    measured("padim", arguments.backbone, layout)  # what is imported on first use is nobody's cost
    rounds = [{side: measured(side, arguments.backbone, layout) for side in SIDES} for _ in range(arguments.rounds)]
    medians = {
        side: {what: round(statistics.median(each[side][what] for each in rounds), 2) for what in ("fit", "score")}
        for side in SIDES
    }
    dearest = {what: max(medians[side][what] for side in SIDES if side != "ensemble") for what in ("fit", "score")}
    record = {
        "set": arguments.set,
        "backbone": arguments.backbone,
        "train_images": len(layout.train),
        "test_images": len(layout.test),
        "rounds": arguments.rounds,
        "cpu_seconds": medians,
        "ensemble_to_dearest": {what: round(medians["ensemble"][what] / dearest[what], 2) for what in dearest},
        "ensemble_to_dearest_both": round(
            sum(medians["ensemble"].values())
            / max(sum(medians[side].values()) for side in SIDES if side != "ensemble"),
            2,
        ),
        "took": clock.read(),
        **provenance(threads=1),
    }
    write(arguments.out or HERE / "results" / f"cost_{arguments.train}.json", record)
    print(record["cpu_seconds"], record["ensemble_to_dearest"], record["ensemble_to_dearest_both"])


if __name__ == "__main__":
    main()
