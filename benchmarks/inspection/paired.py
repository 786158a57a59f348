"""Is one row better than another on the same test images? A paired, stratified bootstrap of their difference.

    python -m benchmarks.inspection.paired

Compares the ensemble of each set and backbone with each of its witnesses, fitted on the same images with the same
seeds, and with each method that was run alone with the same seeds; writes `results/paired.json`.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.provenance import provenance
from benchmarks.records import read, write
from dracones.metrics import auroc

RESULTS = Path(__file__).parent / "results"
MARGIN = 0.003  # what the ensemble may be below the best single method


def difference(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """AUROC of the first scores less that of the second, its 95 % interval, and the two-sided p-value of no difference.

    Scores are `[N]`, or `[S, N]` of S seeds: then it is the mean difference over seeds. All are judged on the same
    resampled images, so what makes a test set hard for both does not count.

    >>> labels = [0] * 20 + [1] * 20
    >>> good, chance = list(range(40)), [i * 7 % 40 for i in range(40)]
    >>> found = difference(good, chance, labels, resamples=200)
    >>> found["low"] > 0, found["p"] < 0.02
    (True, True)
    """
    one, other, truth = np.atleast_2d(first), np.atleast_2d(second), np.asarray(labels)

    def of(chosen: np.ndarray) -> float:
        pairs = zip(one[:, chosen], other[:, chosen], strict=True)
        return float(np.mean([float(auroc(a, truth[chosen])) - float(auroc(b, truth[chosen])) for a, b in pairs]))

    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(truth == label) for label in (0, 1)]
    drawn = np.array(
        [of(np.concatenate([rng.choice(group, len(group)) for group in places])) for _ in range(resamples)]
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    tail = min(np.mean(drawn <= 0), np.mean(drawn >= 0))
    return {
        "difference": round(of(np.arange(len(truth))), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "p": round(float(min(1.0, 2 * max(tail, 1 / resamples))), 4),
    }


def compared(runs: list[dict[str, Any]], resamples: int) -> Iterator[dict[str, Any]]:
    """A row for each ensemble and each of its rivals with scores of the same seeds."""
    ensembles = defaultdict(dict)
    for run in runs:
        if run["method"] == "ensemble":
            ensembles[run["set"], run["backbone"]][run["seed"]] = run
    for (set_name, backbone), by_seed in sorted(ensembles.items()):
        seeds = sorted(by_seed)
        labels = by_seed[seeds[0]]["labels"]
        whole = [by_seed[seed]["scores"] for seed in seeds]
        for rival, theirs in sorted(_rivals(runs, set_name, backbone, by_seed).items()):
            shared = [seed for seed in seeds if seed in theirs]
            if shared != seeds:
                continue
            scores = [theirs[seed] for seed in seeds]
            yield {
                "set": set_name,
                "backbone": backbone,
                "seeds": seeds,
                "rival": rival,
                "ensemble_auroc": round(float(np.mean([float(auroc(each, labels)) for each in whole])), 4),
                "rival_auroc": round(float(np.mean([float(auroc(each, labels)) for each in scores])), 4),
                **difference(whole, scores, labels, resamples=resamples),
            }


def _rivals(
    runs: list[dict[str, Any]], set_name: str, backbone: str, by_seed: dict[int, dict[str, Any]]
) -> dict[str, dict[int, list[float]]]:
    """Scores by rival and seed: the ensemble's witnesses, and methods run alone whose scores were kept."""
    found: dict[str, dict[int, list[float]]] = defaultdict(dict)
    for seed, run in by_seed.items():
        for name, witness in run["witnesses"].items():
            found[f"witness {name}"][seed] = witness["scores"]
    for run in runs:
        alone = run["method"] != "ensemble" and "scores" in run
        if alone and (run["set"], run["backbone"]) == (set_name, backbone):
            found[f"{run['method']} alone"][run["seed"]] = run["scores"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS / "paired.json")
    arguments = parser.parse_args()
    runs = [read(path) for path in sorted(RESULTS.glob("*-*.json")) if path.name.startswith(("screw", "mtd"))]
    rows = list(compared(runs, arguments.resamples))
    write(arguments.out, {"margin": MARGIN, "resamples": arguments.resamples, "rows": rows, **provenance()})


if __name__ == "__main__":
    main()
