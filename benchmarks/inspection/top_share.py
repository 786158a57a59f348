"""What share of a heat map an image score should average, told by made defects on good images: no test image is read.

    DRACONES_TEST_DATA=... python -m benchmarks.inspection.top_share fastflow screw '{"epochs": 5}'

Fits a method on four fifths of the good training images and makes defects on the other fifth, each kind alike, their
sizes drawn evenly on a logarithmic scale (no size is preferred) and their contrasts evenly. For each share the AUROC of
defects against the same images without one; a score of the whole map beside it. Adds a row to the results.
"""

import argparse
import json
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dracones
from benchmarks.inspection.entries import METHODS, options
from benchmarks.inspection.sets import SETS, unpacked
from benchmarks.provenance import provenance
from benchmarks.records import read, write
from dracones.images import DEFECT_KINDS, ImageCollection, MvtecLayout, with_defect
from dracones.methods.heatmap import image_score
from dracones.metrics import auroc

SHARES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
SMALLEST, LARGEST = 0.02, 0.32
_AN_IMAGE = 4  # defects on each good image
_AT_ONCE = 16


def with_defects(images: Tensor, seed: int) -> Tensor:
    """Each image with `_AN_IMAGE` made defects, one at a time."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(_AN_IMAGE * len(images)):
        place = number % len(images)
        size, contrast = torch.rand(2, generator=generator).tolist()
        made.append(
            with_defect(
                images[place],
                DEFECT_KINDS[number % len(DEFECT_KINDS)],
                size=SMALLEST * math.exp(size * math.log(LARGEST / SMALLEST)),
                contrast=0.25 + 0.75 * contrast,
                donor=images[place - 1],
                generator=generator,
            ).image
        )
    return torch.stack(made)


@torch.no_grad()
def by_share(method: dracones.methods.Method, images: Tensor) -> dict[str, Tensor]:
    """Scores `[N]` by each share of the heat map, its hottest pixel and its mean."""
    found: dict[str, list[Tensor]] = {}
    for batch in images.split(_AT_ONCE):
        heat = method(batch).map
        if heat is None:
            raise ValueError("top_share: a method without a heat map")
        for share in SHARES:
            found.setdefault(str(share), []).append(image_score(heat, "top", share))
        found.setdefault("max", []).append(image_score(heat, "max", 1))
        found.setdefault("mean", []).append(image_score(heat, "mean", 1))
    return {how: torch.cat(scores) for how, scores in found.items()}


def told(method: dracones.methods.Method, good: ImageCollection, seed: int) -> dict[str, float]:
    """AUROC of made defects by how the image score is read off the map."""
    images = good.to_tensor()
    normal, defective = by_share(method, images), by_share(method, with_defects(images, seed))
    labels = np.repeat([0, 1], [len(images), _AN_IMAGE * len(images)])
    return {how: round(float(auroc(torch.cat([normal[how], defective[how]]).numpy(), labels)), 4) for how in normal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("set", choices=SETS)
    parser.add_argument("options", nargs="?", default="{}", help="JSON of options that differ from the entry")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "dracones-inspection")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "top_share.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("DRACONES_CACHE", str(arguments.work / "cache"))
    train = MvtecLayout(unpacked(arguments.set, arguments.work)).train
    held = np.arange(len(train)) % 5 == 4
    asked = json.loads(arguments.options)
    detector = dracones.create(arguments.method, **{**options(arguments.method, "resnet18", arguments.seed), **asked})
    started = time.process_time()
    detector.fit(train.subset(~held))
    good = train.subset(held).with_preprocess(detector.pipeline.preprocess)
    row = {
        "set": arguments.set,
        "method": arguments.method,
        "options": asked,
        "train_images": int((~held).sum()),
        "held_out_images": int(held.sum()),
        "auroc_of_made_defects": told(detector.method.eval(), good, arguments.seed),
        "cpu_seconds": round(time.process_time() - started, 1),
        **provenance(threads=1),
    }
    rows = read(arguments.out)["rows"] if arguments.out.exists() else []
    write(arguments.out, {"rows": [*rows, row]})
    print(arguments.method, arguments.set, row["auroc_of_made_defects"])


if __name__ == "__main__":
    main()
