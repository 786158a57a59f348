"""The rule `auto`, each of its witnesses alone, and other ways to merge them: `python -m benchmarks.paradox.auto`.

A Glow of the tables gives the statistics; the layout and the Gaussians of embeddings learn from four fifths of 8,000
training images, the rules are fitted on the other fifth. One setting for all pairs; no image of another set is seen by
anything that is fitted.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.paradox.datasets import data_root, test_images, train_images
from benchmarks.paradox.evaluate import AGAINST, FITTED_ON, RESULTS, row_of, shuffled
from benchmarks.paradox.runs import RUNS
from benchmarks.paradox.train import MODELS, load
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.densities import Density
from dracones.images import open_images
from dracones.methods import Parts
from dracones.methods.embedding_witness import EmbeddingWitness
from dracones.methods.layout import Layout
from dracones.rules import EMBEDDING, LAYOUT, Auto, cheap_statistics, gather

GLOWS = {"FashionMNIST": "fashionmnist", "MNIST": "mnist", "CIFAR-10": "cifar10", "CelebA": "celeba"}
BACKBONES = {
    "ResNet-18": ("resnet18", "backbones/resnet18_tv_layer123_fp16.safetensors"),
    "packaged": ("tf_efficientnet_lite0", "packaged"),
}
PIXELS = "auto, pixels"
BEFORE = ("joint", "surprise", "complexity")
Statistics = dict[str, dict[str, Tensor]]


def evaluate(name: str, models: Path, at_most: int | None) -> dict[str, Any]:
    """The record of one normal set against its others."""
    started = time.process_time()
    density, model = load(RUNS[f"{GLOWS[name]}-glow-seed0"], models)
    train = shuffled(train_images(name), FITTED_ON)
    held_out = torch.arange(len(train)) % 5 == 4
    sets = {"held out": train[held_out]}
    for each in (name, *AGAINST[name]):
        sets[each] = test_images(each) if at_most is None else shuffled(test_images(each), at_most)
    statistics = pixel_statistics(density, train[~held_out], sets)
    scores = auto_scores(statistics)
    for title, (backbone, weights) in BACKBONES.items():
        found = embedding_statistics(backbone, weights, train[~held_out], sets)
        scores |= with_embedding({each: statistics[each] | found[each] for each in statistics}, title)
        print(f"{name}: {title} done", flush=True)
    return {
        "trained_on": name,
        "density": model["run"],
        "rules_fitted_on": f"{int(held_out.sum())} images of the training set",
        "test_images_at_most": at_most,
        **provenance(),
        "cpu_seconds": round(time.process_time() - started, 1),
        "auroc": {title: row_of(found, name) for title, found in scores.items()},
    }


def pixel_statistics(density: Density, train: Tensor, sets: Mapping[str, Tensor]) -> Statistics:
    """What `auto` reads of the pixels, the layout's log-density among it."""
    layout = Layout(density.image_shape)
    layout.fit(open_images(train.float() / 255))
    names = [*cheap_statistics(density), LAYOUT]
    found = {}
    for each, images in sets.items():
        found[each] = gather(density, _batches(images), names, further={LAYOUT: layout})
        print(f"{each} gathered", flush=True)
    return found


def embedding_statistics(backbone: str, weights: str, train: Tensor, sets: Mapping[str, Tensor]) -> Statistics:
    """The log-likelihood of embeddings, by the Gaussian of the training images'."""
    file = weights if weights == "packaged" else str(data_root() / weights)
    witness = EmbeddingWitness(backbone=backbone, weights=file, seed=0)
    witness.build((int(train.shape[1]), int(train.shape[2]), int(train.shape[3])))
    images = open_images(train.float() / 255)
    # Nothing is trained by gradient descent: the Gaussian is taken on the way.
    list(witness.trainees(Parts(images, images.subset([]), images.subset([]))))
    witness.eval()
    return {
        each: gather(None, _batches(images), [EMBEDDING], further={EMBEDDING: witness.log_prob})
        for each, images in sets.items()
    }


def _batches(images: Tensor) -> Any:
    return (batch.float() / 255 for batch in images.split(250))


def auto_scores(statistics: Statistics) -> dict[str, dict[str, Tensor]]:
    """By title and set: `auto`, its witnesses, the sum over those of before, and the harmonic mean of all."""
    rule = _fitted(statistics)
    evidence = {each: rule.evidence(found) for each, found in statistics.items() if each != "held out"}
    titles = {f"witness: {name}": name for name in rule.witnesses}
    found = {title: {each: voices[name] for each, voices in evidence.items()} for title, name in titles.items()}
    found[PIXELS] = {each: rule.merged(voices) for each, voices in evidence.items()}
    found["sum over the three of before"] = {
        each: torch.stack([voices[name] for name in BEFORE]).sum(dim=0) for each, voices in evidence.items()
    }
    found["harmonic mean of the p-values"] = {
        each: torch.logsumexp(torch.stack(list(voices.values())), dim=0) for each, voices in evidence.items()
    }
    return found


def with_embedding(statistics: Statistics, title: str) -> dict[str, dict[str, Tensor]]:
    """By title and set: the embedding alone, `auto` with it, and the plain sum over all witnesses."""
    rule = _fitted(statistics)
    evidence = {each: rule.evidence(found) for each, found in statistics.items() if each != "held out"}
    return {
        f"embedding: {title}": {each: voices["embedding"] for each, voices in evidence.items()},
        f"auto, pixels and {title}": {each: rule.merged(voices) for each, voices in evidence.items()},
        f"sum over pixels' witnesses and {title}": {
            each: torch.stack(list(voices.values())).sum(dim=0) for each, voices in evidence.items()
        },
    }


def _fitted(statistics: Statistics) -> Auto:
    rule = Auto(statistics=list(statistics["held out"]))
    rule.fit(statistics["held out"])
    return rule


def result_file(name: str, results: Path) -> Path:
    """Where the record of a normal set lies."""
    return results / f"auto-{GLOWS[name]}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(GLOWS)}; default: all that are trained")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--at-most", type=int, help="images of each test set, drawn at random; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    unknown = [name for name in arguments.names if name not in GLOWS]
    if unknown:
        parser.error(f"unknown sets {unknown}; known are {', '.join(GLOWS)}")
    for name in arguments.names or GLOWS:
        if not (arguments.models / f"{GLOWS[name]}-glow-seed0.safetensors").exists():
            print(f"{name}: its Glow is not trained: python -m benchmarks.paradox.train {GLOWS[name]}-glow-seed0")
            continue
        record = evaluate(name, arguments.models, arguments.at_most)
        write(result_file(name, arguments.results), record)
        for title, found in record["auroc"].items():
            print(f"  {title:44s}", {other: cell["value"] for other, cell in found.items()}, flush=True)


if __name__ == "__main__":
    main()
