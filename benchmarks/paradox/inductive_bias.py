"""Kirichenko et al. 2020, masks and bottlenecks: `python -m benchmarks.paradox.inductive_bias [--train N]`.

FashionMNIST at 14x14 (28x28 would take four times as long for every row alike): each pixel the mean of four. Every
variant is trained alike, each seed once, one CPU thread, and kept in a folder: a killed run goes on, a finished one is
read back. `--train N` trains the first N seeds and stops there; without it what is trained is measured.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.paradox.datasets import train_images
from benchmarks.paradox.train import MODELS
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.anatomy.variants import trained, variants
from dracones.training import TrainingConfig

FOLDER = MODELS / "inductive-bias"
HELD_OUT = 1000
NETWORK = {"hidden": 16, "blocks": 2, "couplings": 8}
TRAINING = TrainingConfig(
    max_steps=300,
    batch_size=64,
    learning_rate=2e-3,
    schedule="cosine",
    final_fraction=0.05,
    warmup=30,
    clip_norm=100.0,
    validate_steps=50,
    device="cpu",
    threads=1,
    checkpoint_seconds=20,
)


def halved(images: Tensor) -> Tensor:
    """8-bit images to half their side, each pixel the mean of four on the 256 levels, in [0, 1]."""
    return F.avg_pool2d(images.float(), 2).round() / 255


def parted(images: Tensor) -> tuple[Tensor, Tensor]:
    """What is trained on and what is held out of the training set: its last images."""
    return images[:-HELD_OUT], images[-HELD_OUT:]


def fit(seeds: int, folder: Path) -> None:
    """Train every variant, seed by seed, the first seed of all before the second of any."""
    images, held_out = parted(halved(train_images("FashionMNIST")))
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for variant in variants():
            note = folder / f"{variant.file(seed=seed)}.json"
            if note.exists():
                continue
            cpu = time.process_time()
            _, report = trained(variant, images, held_out, TRAINING, seed=seed, folder=folder, **NETWORK)
            seconds = round(time.process_time() - cpu, 1)
            whole = report.resumed_from is None
            write(note, {"cpu_seconds": seconds if whole else None, **provenance(), "report": report.model_dump()})
            print(variant.name, seed, seconds, report.best_validation_loss, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, metavar="N", default=0)
    parser.add_argument("--models", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.train:
        fit(arguments.train, arguments.models)


if __name__ == "__main__":
    main()
