"""Score every pair by every rule: `python -m benchmarks.paradox.evaluate [NAME ...] [--models DIR]`.

Statistics are gathered once per run and kept beside the weights; the results are one JSON per run in
`benchmarks/paradox/results`. Rules are fitted on images of the training set, all with one setting, and see no
out-of-distribution image.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.paradox.datasets import fingerprint, test_images, train_images
from benchmarks.paradox.runs import RUNS, Run
from benchmarks.paradox.train import MODELS, load
from benchmarks.provenance import provenance
from benchmarks.records import write
from dracones.densities import Density, bits_per_dim
from dracones.metrics import Ranking, auroc, auroc_interval
from dracones.rules import cheap_statistics, create_for, gather

RESULTS = Path(__file__).parent / "results"
AGAINST = {
    "FashionMNIST": ("MNIST", "notMNIST"),
    "MNIST": ("FashionMNIST", "notMNIST"),
    "CIFAR-10": (
        "CIFAR-100",
        "CelebA",
        "Tiny ImageNet",
        "textures",
        "synthetic house numbers",
        "noise",
        "constants",
    ),
    "CelebA": ("CIFAR-10", "synthetic house numbers"),
}
RULES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("likelihood", "likelihood", {}),
    ("latent term", "latent", {}),
    ("latent term, two-sided", "latent", {"sides": "two"}),
    ("volume term", "volume", {}),
    ("volume term, two-sided", "volume", {"sides": "two"}),
    ("typicality", "typicality", {}),
    ("complexity, PNG", "complexity", {"codec": "png"}),
    ("complexity, WebP", "complexity", {"codec": "webp"}),
    ("DoSE, kernel densities", "dose", {}),
    ("DoSE, one-class SVM", "dose", {"method": "svm"}),
    ("joint density of the statistics", "joint", {}),
    ("surprise", "surprise", {}),
    ("likelihood ratio", "likelihood_ratio", {}),
    ("WAIC", "waic", {}),
    ("gradient norm", "gradient_norm", {}),
    ("intrinsic dimension", "intrinsic_dimension", {}),
    ("likelihood regret", "likelihood_regret", {}),
)
FITTED_ON = 8000  # images of the training set that the rules learn from
COSTLY_ON = {"gradient_norm": 1000, "intrinsic_dimension": 16, "likelihood_regret": 250}


def scored(images: Tensor) -> Any:
    """Batches of [0, 1] images, so that no set is held as floats at once."""
    return (batch.float() / 255 for batch in images.split(250))


def shuffled(images: Tensor, count: int) -> Tensor:
    """`count` of the images, drawn with a fixed seed: files are sorted by class."""
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]]


def statistics_of(
    run: Run, models: Path, skip: tuple[str, ...] = (), at_most: int | None = None
) -> dict[str, dict[str, Tensor]]:
    """Per set its statistics; gathered on first use, then read. `train` is what the rules are fitted on."""
    cached = models / f"{run.key}.statistics{'' if at_most is None else f'-{at_most}'}.pt"
    found = torch.load(cached, weights_only=True) if cached.exists() else {}
    density = load(run, models)[0]
    extra = _extra_models(run, models)
    names = list(cheap_statistics(density))
    names += ["background_log_prob"] if "background" in extra else []
    names += ["ensemble_log_prob_mean", "ensemble_log_prob_variance"] if "ensemble" in extra else []
    costly = [name for name in COSTLY_ON if name not in skip and _can(run, density, name)]
    sets = {"train": shuffled(train_images(run.data), at_most or FITTED_ON)}
    for name in (run.data, *AGAINST[run.data]):
        sets[name] = test_images(name) if at_most is None else shuffled(test_images(name), at_most)
    for name, images in sets.items():
        entry = found.setdefault(name, {})
        missing = [each for each in names if each not in entry]
        if missing:
            entry |= gather(density, scored(images), missing, **extra)
        for each in costly:
            if each not in entry:
                few = scored(shuffled(images, COSTLY_ON[each]))
                entry[each] = gather(density, few, [each])[each]
                pair = shuffled(entry["log_prob"][:, None], COSTLY_ON[each])[:, 0]
                entry[f"log_prob of {each}"] = pair
        torch.save(found, cached)
        print(f"{run.key}: {name} gathered", flush=True)
    return found


def _can(run: Run, density: Density, name: str) -> bool:
    """Whether a costly statistic is gathered: for one seed of the four Glows, the dimension for 784 pixels only."""
    if run.seed or run.replace_rate:
        return False
    if name == "likelihood_regret":
        return name in density.available_statistics
    affordable = run.name.endswith("-glow")
    return affordable and (name != "intrinsic_dimension" or run.data == "FashionMNIST")


def _extra_models(run: Run, models: Path) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if run.density != "glow" or run.seed or "constant" in run.name or run.replace_rate:
        return extra
    background = RUNS.get(f"{run.name}-background-seed0")
    if background and (models / f"{background.key}.safetensors").exists():
        extra["background"] = load(background, models)[0]
    members = [each for each in RUNS.values() if each.name == run.name]
    trained = [each for each in members if (models / f"{each.key}.safetensors").exists()]
    if len(trained) > 1:
        extra["ensemble"] = [load(each, models)[0] for each in trained]
    return extra


def evaluate(run: Run, models: Path, skip: tuple[str, ...] = (), at_most: int | None = None) -> dict[str, Any]:
    """The JSON of one run: bits/dim per set, AUROC with its 95 % interval per rule and pair."""
    started = time.process_time()
    statistics = statistics_of(run, models, skip, at_most)
    density, record = load(run, models)
    others = AGAINST[run.data]
    dimensions = density.dimensions
    table: dict[str, dict[str, Any]] = {}
    for title, name, options in RULES:
        row = _row(name, options, density, statistics, run.data, others)
        if row:
            table[title] = row
    return {
        "run": run.key,
        "trained_on": run.data,
        "model": record,
        **provenance(),
        "rules_fitted_on": f"{at_most or FITTED_ON} images of the training set, no out-of-distribution image",
        "test_images_at_most": at_most,
        "bits_per_dim": {
            name: round(float(bits_per_dim(entry["log_prob"], dimensions).mean()), 4)
            for name, entry in statistics.items()
        },
        "sets": {
            name: {"images": len(test_images(name)), "sha256": fingerprint(test_images(name))}
            for name in (run.data, *others)
        },
        "auroc": table,
        "auroc_of_each_statistic_low": _alone(density, statistics, run.data, others),
        "evaluation_cpu_seconds": round(time.process_time() - started, 1),
    }


def auroc_of(inside: Tensor, outside: Tensor) -> dict[str, Any]:
    """AUROC, with its 95 % interval, of scores of normal images and of others."""
    labels = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))])
    estimate = auroc_interval(Ranking(torch.cat([inside, outside]), labels))
    return {key: round(value, 4) for key, value in estimate.to_dict().items()}


def row_of(scores: Mapping[str, Tensor], normal: str) -> dict[str, Any]:
    """The same of the normal set against each other one, from the scores of each."""
    return {other: auroc_of(scores[normal], scores[other]) for other in AGAINST[normal]}


def _row(
    name: str,
    options: dict[str, Any],
    density: Density,
    statistics: dict[str, dict[str, Tensor]],
    normal: str,
    others: tuple[str, ...],
) -> dict[str, Any]:
    """AUROC against each other set; empty where the density cannot give what the rule needs."""
    if name == "joint":
        options = {**options, "statistics": list(cheap_statistics(density))}
    if name == "surprise":
        options = {**options, "given": [each for each in cheap_statistics(density) if _of_image(each, density)]}
    rule = create_for(name, density, **options)
    if any(each not in statistics[normal] for each in rule.requires):
        return {}
    used = {key: dict(entry) for key, entry in statistics.items()}
    for entry in used.values():  # the costly ones are known for a part of the images: take the same part of the rest
        if name in COSTLY_ON:
            entry["log_prob"] = entry[f"log_prob of {name}"]
    needed = {key: {each: entry[each] for each in rule.requires} for key, entry in used.items()}
    rule.fit(needed["train"])
    inside = rule.score(needed[normal])
    row = {}
    for other in others:
        outside = rule.score(needed[other])
        row[other] = auroc_of(inside, outside)
        row[other] |= {"normal_images": len(inside), "other_images": len(outside)}
    return row


def _alone(
    density: Density, statistics: dict[str, dict[str, Tensor]], normal: str, others: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """AUROC of every statistic by itself, low taken as anomalous: far from .5 on either side is information."""
    found: dict[str, dict[str, float]] = {}
    for other in others:
        for name in cheap_statistics(density):
            inside, outside = statistics[normal][name], statistics[other][name]
            labels = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))])
            found.setdefault(other, {})[name] = round(auroc(-torch.cat([inside, outside]), labels), 3)
    return found


def _of_image(name: str, density: Density) -> bool:
    return name not in density.available_statistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="runs, by key or by a part of it; default: all that are trained")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--at-most", type=int, help="images of each set, drawn at random; default: all")
    parser.add_argument("--skip", nargs="*", default=[], help=f"leave out costly statistics: {', '.join(COSTLY_ON)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for key, run in RUNS.items():
        asked = not arguments.names or any(name in f"/{key}" for name in arguments.names)
        if asked and not run.replace_rate and (arguments.models / f"{key}.safetensors").exists():
            result = evaluate(run, arguments.models, tuple(arguments.skip), arguments.at_most)
            write(arguments.results / f"{key}.json", result)
            for title, row in result["auroc"].items():
                print(f"  {title:34s}", {other: cell["value"] for other, cell in row.items()}, flush=True)


if __name__ == "__main__":
    main()
