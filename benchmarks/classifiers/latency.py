"""What a guard adds to one request: `wrap()` at batch 1 beside the plain classifier, turn and turn about.

    python -m benchmarks.classifiers.latency -o benchmarks/classifiers/results/latency.json

Each round runs the plain classifier and every guard once, in an order that changes from round to round, on one image;
a ratio is the median over rounds of a guard's CPU time over the mean of the two plain passes around it. Weights are
random: time does not depend on them.
"""

import argparse
import random
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import dracones
from benchmarks.classifiers.networks import resnet20
from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write

GUARDS: dict[str, dict[str, Any]] = {
    "msp": {},
    "energy": {},
    "react": {},
    "vim": {"dimensions": 16},
    "mahalanobis": {},
    "knn": {"k": 5},
    "msp, accelerate": {"accelerate": True},
}
_FITTED, _TARGET = 256, 1.05


def networks() -> dict[str, tuple[nn.Module, int]]:
    """Name -> classifier and the side of its images."""
    torch.manual_seed(0)
    return {
        "resnet20 at 32 pixels": (resnet20().eval(), 32),
        "resnet18 at 224 pixels": (timm.create_model("resnet18", num_classes=10).eval(), 224),
    }


def measure(net: nn.Module, side: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of the plain pass and ratios of the guards."""
    images = torch.rand(_FITTED if side < 64 else 48, 3, side, side, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(len(images)) % 10
    wrapped: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in GUARDS.items():
            guard = dracones.create(name.split(",")[0], classifier=net, calibration_share=0.0, **options)
            wrapped[name] = guard.fit(images, labels=labels).wrap()
    one = images[:1].clone()
    ratios: dict[str, list[float]] = {name: [] for name in wrapped}
    plain_times: list[float] = []
    order, shuffled = list(wrapped), random.Random(0)
    for round_ in range(rounds + 3):
        shuffled.shuffle(order)
        before = _timed(net, one)
        for name in order:
            guarded = _timed(wrapped[name], one)
            after = _timed(net, one)
            if round_ >= 3:
                ratios[name].append(2 * guarded / (before + after))
                plain_times.append(after)
            before = after
    return {
        "rounds": rounds,
        "plain_milliseconds": round(1000 * statistics.median(plain_times), 3),
        "ratio": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "quartiles": {name: [round(q, 3) for q in statistics.quantiles(v, n=4)[::2]] for name, v in ratios.items()},
    }


def _timed(module: nn.Module, image: Tensor) -> float:
    started = time.process_time()
    with torch.no_grad():
        module(image)
    return time.process_time() - started


def main() -> None:
    """Measure, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record, watch = provenance(), Stopwatch()
    # A large network is slower and its times differ less.
    found = {
        name: measure(net, side, arguments.rounds if side < 64 else max(arguments.rounds // 10, 5))
        for name, (net, side) in networks().items()
    }
    record |= {
        "command": f"python -m benchmarks.classifiers.latency --rounds {arguments.rounds}",
        "target": _TARGET,
        "networks": found,
        **watch.read(),
    }
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
