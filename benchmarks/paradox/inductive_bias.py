"""Kirichenko et al. 2020, masks and bottlenecks: `python -m benchmarks.paradox.inductive_bias [--train N]`.

FashionMNIST at 14x14 (28x28 would take four times as long for every row alike): each pixel the mean of four. Every
variant is trained alike, each seed once, one CPU thread, and kept in a folder: a killed run goes on, a finished one is
read back. `--train N` trains the first N seeds and stops there; without it what is trained is measured: the variants
whose first `--seeds` seeds are there, to `results/inductive-bias.json` and pictures in `figures/`.
"""

import argparse
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from benchmarks.paradox.datasets import fingerprint, test_images, train_images
from benchmarks.paradox.evaluate import RESULTS
from benchmarks.paradox.second_order import recorded
from benchmarks.paradox.train import MODELS
from benchmarks.provenance import provenance
from benchmarks.records import read, write
from dracones import anatomy
from dracones.anatomy import InductiveBias, couplings, inductive_bias, latent_images
from dracones.anatomy.variants import BOTTLENECKS, MASKS, Variant, trained, variants
from dracones.report.plain import plain
from dracones.training import TrainingConfig

FOLDER = MODELS / "inductive-bias"
FIGURES = Path(__file__).parent / "figures"
OTHERS = ("MNIST", "notMNIST")
HELD_OUT = 1000
SECOND_ORDER_ON = 300  # images of each set
NETWORK = {"hidden": 16, "blocks": 2, "couplings": 8}
TRAINING = TrainingConfig(
    max_steps=1800,
    batch_size=32,
    learning_rate=2e-3,
    schedule="cosine",
    final_fraction=0.02,
    warmup=50,
    clip_norm=100.0,
    validate_steps=150,
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
            note = _note(folder, variant, seed)
            if note.exists():
                continue
            cpu = time.process_time()
            _, report = trained(variant, images, held_out, TRAINING, seed=seed, folder=folder, **NETWORK)
            seconds = round(time.process_time() - cpu, 1)
            whole = report.resumed_from is None
            write(note, {"cpu_seconds": seconds if whole else None, **provenance(), "report": report.model_dump()})
            print(variant.name, seed, seconds, report.best_validation_loss, flush=True)


def measure(seeds: int, folder: Path, at_most: int) -> None:
    """Bits/dim, AUROC, sharpening of −t and pictures of every variant of which all ``seeds`` are trained."""
    images, held_out = parted(halved(train_images("FashionMNIST")))
    sets = {name: halved(test_images(name))[:at_most] for name in ("FashionMNIST", *OTHERS)}
    normal = sets.pop("FashionMNIST")
    done = {each.name for each in variants() if all(_note(folder, each, seed).exists() for seed in range(seeds))}
    found = inductive_bias(
        images,
        normal,
        sets,
        masks=[kind for kind in MASKS if kind in done],
        bottlenecks=[size for size in BOTTLENECKS if f"l = {size}" in done],
        seeds=seeds,
        held_out=held_out,
        config=TRAINING,
        folder=folder,
        **NETWORK,
    )
    inside = {name: couplings(density, normal, sets) for name, density in found.densities.items()}
    kept = [each for each in variants() if each.name in done]
    notes = {each.name: [read(_note(folder, each, seed)) for seed in range(seeds)] for each in kept}
    pale, second = second_order_of(found, normal, sets)
    write(
        RESULTS / "inductive-bias.json",
        {
            "trained_on": "FashionMNIST",
            "size": "14x14, each pixel the mean of four",
            "not_trained": [each.name for each in variants() if each.name not in done],
            "test_images": {name: len(each) for name, each in {"FashionMNIST": normal, **sets}.items()},
            "sha256": {name: fingerprint(test_images(name)) for name in ("FashionMNIST", *OTHERS)},
            "training": TRAINING.model_dump(),
            "network": NETWORK,
            "training_commit": {name: [each["commit"] for each in every] for name, every in notes.items()},
            "cpu_seconds": {name: [each["cpu_seconds"] for each in every] for name, every in notes.items()},
            "words": found.in_words(),
            "sharpening_of_minus_t": {name: plain(each.sharpening) for name, each in inside.items()},
            "sharpness_by_coupling": {
                name: [layer.sharpness["normal"].value for layer in each.layers] for name, each in inside.items()
            },
            **recorded(pale, second),
            "finding": found.to_json(),
            **provenance(),
        },
    )
    draw(found, normal, sets)
    for name, figure in (("graying", pale.figure()), ("shrinking", second.shrink_figure()), ("gaps", second.figure())):
        _save(name, figure)


def second_order_of(
    found: InductiveBias, normal: Tensor, others: dict[str, Tensor]
) -> tuple[anatomy.Graying, anatomy.SecondOrder]:
    """Nalisnick et al.'s two analyses on the first variant, on a few hundred images of each set."""
    density = next(iter(found.densities.values()))
    few = {name: images[:SECOND_ORDER_ON] for name, images in others.items()}
    pale = anatomy.graying(density, normal[:SECOND_ORDER_ON], few)
    return pale, anatomy.second_order(density, normal[:SECOND_ORDER_ON], few, count=64, probes=16)


def draw(found: InductiveBias, normal: Tensor, others: dict[str, Tensor]) -> None:
    """The figures as pictures."""
    pictures = {"histograms": found.figure(), "auroc": found.auroc_figure()}
    for name, density in found.densities.items():
        pictures[f"couplings-{name}"] = couplings(density, normal, others, count=2).image_figure()
        pictures[f"latents-{name}"] = latent_images(density, normal, others).figure()
    for name, figure in pictures.items():
        _save(name, figure)


def _save(name: str, figure: Figure) -> None:
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / f"{name.replace(' = ', '-')}.png", dpi=90)


def _note(folder: Path, variant: Variant, seed: int) -> Path:
    return folder / f"{variant.file(seed=seed)}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, metavar="N", default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--at-most", type=int, default=2000, help="test images of each set")
    parser.add_argument("--models", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.train:
        fit(arguments.train, arguments.models)
    else:
        measure(arguments.seeds, arguments.models, arguments.at_most)


if __name__ == "__main__":
    main()
