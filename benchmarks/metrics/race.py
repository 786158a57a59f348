"""Race of the metrics: CPU seconds of one thread and peak memory beside the libraries in common use.

    python -m benchmarks.metrics.race [--peers PYTHON] [--rounds 3] [--quick]

PYTHON is an interpreter that has the peers; without it one is made in the temporary folder and kept for the next run.
What is not installed there is left out and said so. Every entrant runs in its own process, all in turn in each round,
so that a busy moment of the machine hits all. Writes results.json and README.md beside this file.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.entrants import ENTRANTS
from benchmarks.peers import environment, measured
from benchmarks.provenance import provenance
from benchmarks.records import read, write

HERE = Path(__file__).parent
PEERS = ("anomalib==2.7.0", "pytorch-ood==0.4.0", "torchmetrics==1.9.0", "scikit-learn")


def make_data(folder: Path, quick: bool) -> dict[str, tuple[Path, Path]]:
    """Ten million scores, and 1,000 maps of 256 x 256 with one to three defects in most."""
    rng = np.random.default_rng(0)
    size, count = (100_000, 20) if quick else (10_000_000, 1000)
    labels = rng.random(size) < 0.5
    # In (0, 1) with all float32 bits in use, because torchmetrics changes any other range.
    scores = (1 / (1 + np.exp(-rng.standard_normal(size) - labels))).astype(np.float32)
    masks = np.zeros((count, 256, 256), dtype=bool)
    for mask in masks[: 3 * count // 4]:
        for _ in range(rng.integers(1, 4)):
            (row, column), (height, width) = rng.integers(0, 200, 2), rng.integers(4, 56, 2)
            mask[row : row + height, column : column + width] = True
    maps = rng.standard_normal(masks.shape, dtype=np.float32) + 1.5 * masks
    maps = (1 / (1 + np.exp(-maps))).astype(np.float32)
    paths = {}
    for name, arrays in {"images": (scores, labels), "maps": (maps, masks)}.items():
        paths[name] = folder / f"{name}-scores.npy", folder / f"{name}-labels.npy"
        for path, array in zip(paths[name], arrays, strict=True):
            np.save(path, array)
    return paths


def run(entrant: str, python: str, files: tuple[Path, Path]) -> dict[str, Any] | str:
    """The child's JSON, or the last line of its error."""
    command = [python, str(HERE / "entrants.py"), entrant, *map(str, files)]
    try:
        return measured(command)
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Race of the metrics",
        "",
        f"Made by `python -m benchmarks.metrics.race` on {results['date'][:10]} at commit `{results['commit'][:10]}`"
        f"{' with changes' if 'changes' in results['commit'] else ''}: {results['machine']}, "
        f"Python {results['python']}, NumPy {results['numpy']}; one thread, "
        f"medians of {results['rounds']} interleaved rounds (range in brackets), {results['seconds']:.0f} s in all.",
        "Extra memory: peak of the process during the computation, above what it held with the data loaded.",
    ]
    titles = {
        "images": "AUROC, AUPR and FPR at 95 % TPR of {size} float32 scores",
        "maps": "Pixel AUROC, F1-max and AUPRO (to 0.3) of {size} maps of 256 × 256",
    }
    for race, title in titles.items():
        entrants = {k.split("/")[1]: v for k, v in results["entrants"].items() if k.startswith(race + "/")}
        ours = entrants["dracones"]
        names = list(ours["values"])
        lines += [
            "",
            f"## {title.format(size=format(results['sizes'][race], ','))}",
            "",
            f"| | CPU seconds | times dracones | extra memory, MB | {' | '.join(names)} |",
            "|---|---|---|---|" + "---|" * len(names),
        ]
        for name, entry in entrants.items():
            if "missing" in entry:
                lines.append(f"| {name} | not run: {entry['missing']} |" + " |" * (2 + len(names)))
                continue
            low, high = min(entry["cpu_seconds"]), max(entry["cpu_seconds"])
            median = statistics.median(entry["cpu_seconds"])
            values = [f"{entry['values'][n]:.9f}" if n in entry["values"] else "–" for n in names]
            lines.append(
                f"| {name} {entry['version']} | {median:.2f} ({low:.2f} to {high:.2f}) | "
                f"{median / statistics.median(ours['cpu_seconds']):.1f} | {max(entry['extra_mb']):,.0f} | "
                f"{' | '.join(values)} |"
            )
    lines += [
        "",
        "Where last digits differ: torchmetrics and anomalib return float32; pytorch-ood's AUPR joins the points by "
        "lines, the others' is average precision.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="interpreter that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written: does it run?")
    parser.add_argument("--page", action="store_true", help="only write README.md anew from results.json")
    options = parser.parse_args()
    if options.page:
        (HERE / "README.md").write_text(page(read(HERE / "results.json")))
        return
    start = time.monotonic()
    entrants: dict[str, Any] = {}
    results: dict[str, Any] = {
        **provenance(),
        "rounds": options.rounds,
        "sizes": {"images": 10_000_000, "maps": 1000},
        "entrants": entrants,
    }
    with tempfile.TemporaryDirectory() as folder:
        peers = options.peers or environment("metrics", PEERS)
        files = make_data(Path(folder), options.quick)
        for _ in range(options.rounds):
            for entrant, (library, _make) in ENTRANTS.items():
                python = sys.executable if library == "dracones" else peers
                got = run(entrant, python, files[entrant.split("/")[0]])
                print(entrant, got, file=sys.stderr)
                if isinstance(got, str):
                    entrants[entrant] = {"missing": got}
                    continue
                entry = entrants.setdefault(entrant, {**got, "cpu_seconds": [], "extra_mb": []})
                entry["cpu_seconds"].append(got["cpu_seconds"])
                entry["extra_mb"].append(got["extra_mb"])
    results["seconds"] = time.monotonic() - start
    if options.quick:
        print(page(results))
        return
    write(HERE / "results.json", results, digits=12)
    (HERE / "README.md").write_text(page(results))


if __name__ == "__main__":
    main()
