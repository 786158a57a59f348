"""Does an ensemble repair it? `python -m benchmarks.paradox.ensembles [--models DIR]`.

Glows on FashionMNIST that differ in their seed alone; every choice of one to all of them, by the mean of their
log-likelihoods (Nalisnick et al. 2019, section 5) and by WAIC (Choi, Jang and Alemi 2018, equation 2).
"""

import argparse
import itertools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.paradox.datasets import test_images
from benchmarks.paradox.evaluate import AGAINST, RESULTS, auroc_of, scored, shuffled
from benchmarks.paradox.runs import RUNS
from benchmarks.paradox.train import MODELS, load
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.rules import gather

NORMAL, NAME = "FashionMNIST", "fashionmnist-glow"
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean log p": lambda members: -members.mean(dim=0),
    "WAIC": lambda members: members.var(dim=0, correction=0) - members.mean(dim=0),
}


def log_probs(models: Path, at_most: int) -> tuple[list[str], dict[str, Tensor]]:
    """The runs that are trained, and per set what each of them says `[M, N]`, nats."""
    trained = [run for run in RUNS.values() if run.name == NAME and (models / f"{run.key}.safetensors").exists()]
    found: dict[str, list[Tensor]] = {name: [] for name in (NORMAL, *AGAINST[NORMAL])}
    for run in trained:
        density = load(run, models)[0]
        for name, every in found.items():
            every.append(gather(density, scored(shuffled(test_images(name), at_most)), ["log_prob"])["log_prob"])
        print(f"{run.key}: scored", flush=True)
    return [run.key for run in trained], {name: torch.stack(every) for name, every in found.items()}


def table(found: dict[str, Tensor]) -> dict[str, Any]:
    """Per score and number of members the AUROC against each set: mean, least and most over all choices of members."""
    count = len(found[NORMAL])
    return {
        title: {str(size): _over_choices(found, score, size) for size in range(1, count + 1)}
        for title, score in SCORES.items()
    }


def _over_choices(found: dict[str, Tensor], score: Callable[[Tensor], Tensor], size: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for other in AGAINST[NORMAL]:
        choices = [list(each) for each in itertools.combinations(range(len(found[NORMAL])), size)]
        cells = [auroc_of(score(found[NORMAL][each]), score(found[other][each])) for each in choices]
        values = [cell["value"] for cell in cells]
        row[other] = {"mean": round(statistics.mean(values), 4), "least": min(values), "most": max(values)}
        if len(cells) == 1:
            row[other] |= {key: cells[0][key] for key in ("low", "high")}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--at-most", type=int, default=2000, help="test images of each set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    members, found = log_probs(arguments.models, arguments.at_most)
    about = {"trained_on": NORMAL, "members": members, "test_images_at_most": arguments.at_most}
    write(RESULTS / "ensembles.json", {**about, **provenance(), "auroc": table(found)})


if __name__ == "__main__":
    main()
