"""How much of a figure is the resizing filter? `python -m benchmarks.paradox.resizing [--models DIR]`.

CIFAR-10's images came to 32x32 by a filter that nobody recorded; CelebA, Tiny ImageNet and textures come there by
ours. The same Glow, the same rules, only the filter changes.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.paradox.datasets import LARGER, resized_by
from benchmarks.paradox.evaluate import RESULTS, scored, shuffled, statistics_of
from benchmarks.paradox.runs import RUNS
from benchmarks.paradox.train import MODELS, load
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.metrics import auroc
from dracones.rules import cheap_statistics, create, create_for, gather

FILTERS = ("BOX", "BILINEAR", "BICUBIC", "LANCZOS", "NEAREST")
AT_MOST = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = RUNS["cifar10-glow-seed0"]
    density = load(run, arguments.models)[0]
    known = statistics_of(run, arguments.models)
    names = list(cheap_statistics(density))
    rules = {
        "likelihood": create("likelihood"),
        "complexity, WebP": create("complexity"),
        "auto": create_for("auto", density),
    }
    for rule in rules.values():
        rule.fit(known["train"])
    inside = {title: rule.score(known[run.data]) for title, rule in rules.items()}
    table: dict[str, dict[str, Any]] = {}
    for name in LARGER:
        for resizing in FILTERS:
            images = shuffled(resized_by(name, Image.Resampling[resizing]), AT_MOST)
            found = gather(density, scored(images), names)
            cell: dict[str, float] = {
                "bits_per_dim": float(-found["log_prob"].mean()) / density.dimensions / math.log(2)
            }
            for title, rule in rules.items():
                outside = rule.score(found)
                labels = torch.cat([torch.zeros(len(inside[title])), torch.ones(len(outside))])
                cell[title] = auroc(torch.cat([inside[title], outside]), labels)
            rounded = {key: round(value, 4) for key, value in cell.items()}
            table.setdefault(name, {})[resizing.lower()] = rounded
            print(name, resizing, rounded, flush=True)
    result = {"run": run.key, "images_at_most": AT_MOST, **provenance(), "table": table}
    write(arguments.results / "resizing.json", result)


if __name__ == "__main__":
    main()
