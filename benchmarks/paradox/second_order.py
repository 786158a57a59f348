"""Nalisnick et al.'s two analyses on Glow and on its constant-volume companions.

    python -m benchmarks.paradox.second_order [FashionMNIST | CIFAR-10] [--models DIR]

Graying towards mid-gray and towards the data's mean, and the second-order expansion, whose published form is of a
constant-volume flow. Writes `results/second-order-SET.json` and pictures in `figures/`.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.paradox.datasets import test_images
from benchmarks.paradox.evaluate import RESULTS, shuffled
from benchmarks.paradox.runs import RUNS
from benchmarks.paradox.train import MODELS, load
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones import anatomy
from dracones.anatomy.graying import grayed
from dracones.densities import Density, bits_per_dim
from dracones.report.plain import plain

DENSITIES = {
    "FashionMNIST": {
        "Glow": "fashionmnist-glow-seed0",
        "constant-volume Glow": "fashionmnist-glow-constant-volume-seed0",
    },
    "CIFAR-10": {"constant-volume Glow on CIFAR-10": "cifar10-glow-constant-volume-seed0"},
}
OTHERS = {"FashionMNIST": ("MNIST", "notMNIST"), "CIFAR-10": ("synthetic house numbers", "CelebA")}
NEARLY_FULL = (1.0, 0.99, 0.98, 0.95)
FIGURES = Path(__file__).parent / "figures"


def recorded(pale: anatomy.Graying, second: anatomy.SecondOrder) -> dict[str, Any]:
    """Both analyses as a record."""
    return {
        "graying": {"words": pale.in_words(), "rows": plain(pale.rows())},
        "second_order": {
            "words": second.in_words(),
            "rows": plain(second.rows()),
            "holds_up_to": {name: second.holds_up_to(name) for name in second.others},
            "shrinking": plain(second.shrink_rows()),
        },
    }


def nearly_full(density: Density, normal: Tensor) -> dict[str, Any]:
    """What a change that nobody sees costs: bits/dim just below full contrast, and the share of black pixels."""
    pale = {contrast: grayed(normal, contrast) for contrast in NEARLY_FULL}
    with torch.no_grad():
        log_probs = {contrast: density.log_prob(images) for contrast, images in pale.items()}
    return {
        "exactly_black": float((normal == 0).float().mean()),
        "bits_per_dim": {
            str(contrast): float(bits_per_dim(found, density.dimensions).mean())
            for contrast, found in log_probs.items()
        },
    }


def analysed(key: str, models: Path, at_most: int) -> tuple[dict[str, Any], dict[str, Figure]]:
    """What one density says when images are grayed and shrunk, as a record and as pictures."""
    density, record = load(RUNS[key], models)
    normal = shuffled(test_images(RUNS[key].data), at_most).float() / 255
    few = {name: shuffled(test_images(name), at_most).float() / 255 for name in OTHERS[RUNS[key].data]}
    pale = anatomy.graying(density, normal, few)
    second = anatomy.second_order(density, normal, few, count=64, probes=16)
    found = {
        "run": key,
        "training_commit": record["commit"],
        **recorded(pale, second),
        "contrast_nearly_full": nearly_full(density, normal),
    }
    figures = {"graying": pale.figure(), "shrinking": second.shrink_figure(), "gaps": second.figure()}
    return found, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("normal", nargs="?", choices=list(DENSITIES), default="FashionMNIST")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--at-most", type=int, default=300, help="test images of each set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for title, key in DENSITIES[arguments.normal].items():
        if (arguments.models / f"{key}.safetensors").exists():
            rows[title], figures = analysed(key, arguments.models, arguments.at_most)
            for name, figure in figures.items():
                figure.savefig(FIGURES / f"{name}-{title.replace(' ', '-')}.png", dpi=90)
            print(
                title, *rows[title]["graying"]["words"], *rows[title]["second_order"]["words"], sep="\n  ", flush=True
            )
    about = {"trained_on": arguments.normal, "test_images_at_most": arguments.at_most}
    write(RESULTS / f"second-order-{arguments.normal}.json", {**about, **provenance(), "densities": rows})


if __name__ == "__main__":
    main()
