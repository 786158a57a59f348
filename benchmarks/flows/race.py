"""Race of the flows: a Glow of 8 steps beside the same Glow in FrEIA, normflows and nflows.

    python -m benchmarks.flows.race [--peers PYTHON] [--rounds 5] [--repeats 10] [--variants NAME ...]

PYTHON is an interpreter that has the peers; without it one is made in the temporary folder and kept for the next run.
Every measurement is a process of its own with one thread; in each round all libraries run in turn, so that a busy
moment of the machine hits all, and the medians over the rounds are reported. `--variants` adds other ways to run
dracones ("dracones, bfloat16"). Writes race.json and race.md beside this file.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.flows.contestants import BATCH, CONTESTANTS, HIDDEN, SHAPES, STEPS
from benchmarks.peers import environment, measured
from benchmarks.provenance import footer, provenance
from benchmarks.records import write

HERE = Path(__file__).parent
PEERS = ("FrEIA", "normflows", "nflows")
TASKS = ("log_prob", "train")
VARIANTS = [name for name in CONTESTANTS if name.startswith("dracones,")]


def run(python: str, contestant: str, size: str, task: str, repeats: int) -> dict[str, Any]:
    return measured([python, str(HERE / "contestants.py"), contestant, size, task, "--repeats", str(repeats)])


def race(
    contestants: list[str], interpreters: dict[str, str], rounds: int, repeats: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """size -> contestant -> medians and the single rounds."""
    readings: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for size in SHAPES:
            for task in TASKS:
                for contestant in contestants:
                    reading = run(interpreters[contestant], contestant, size, task, repeats)
                    readings.setdefault((size, contestant, task), []).append(reading)
                    speed = reading["images_per_cpu_second"]
                    print(f"round {number + 1}, {size}, {task}, {contestant}: {speed:.0f}", file=sys.stderr)
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for (size, contestant, task), found in readings.items():
        entry = results.setdefault(size, {}).setdefault(contestant, {})
        entry |= {key: found[0][key] for key in ("package", "version", "torch", "parameters")}
        for key in ("images_per_cpu_second", "peak_memory_mb"):
            values = [reading[key] for reading in found]
            entry[f"{task}_{key}"] = statistics.median(values)
            entry[f"{task}_{key}_rounds"] = values
    return results


def ahead(results: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, float]]]:
    """size -> peer -> how many times better dracones is, for each of the figures."""
    factors: dict[str, dict[str, dict[str, float]]] = {}
    for size, entries in results.items():
        own = entries["dracones"]
        for peer in PEERS:
            other = entries[peer]
            factors.setdefault(size, {})[peer] = {
                "log_prob_speed": own["log_prob_images_per_cpu_second"] / other["log_prob_images_per_cpu_second"],
                "train_speed": own["train_images_per_cpu_second"] / other["train_images_per_cpu_second"],
                "train_memory": other["train_peak_memory_mb"] / own["train_peak_memory_mb"],
            }
    return factors


def page(record: dict[str, Any]) -> str:
    lines = [
        "# Flow race",
        "",
        f"One Glow: a squeeze, then {STEPS} steps of ActNorm, 1×1 convolution and affine coupling, conditioners of",
        f"{HIDDEN} hidden channels (3×3, 1×1, 3×3), batches of {BATCH}, one thread, float32. Speed is images per",
        f"CPU second, the median of {record['rounds']} rounds (lowest to highest in brackets); memory is how far the",
        "process grew during a training step, in MB. FrEIA's mixing is a fixed rotation, the others' is learnt.",
        "",
    ]
    for size, entries in record["results"].items():
        shape = "×".join(map(str, SHAPES[size]))
        lines += [f"## {shape}", "", "| | log_prob | training | MB |", "|---|---|---|---|"]
        for name, entry in entries.items():
            cells = []
            for task in TASKS:
                rounds = entry[f"{task}_images_per_cpu_second_rounds"]
                middle = entry[f"{task}_images_per_cpu_second"]
                cells.append(f"{middle:,.0f} ({min(rounds):,.0f} to {max(rounds):,.0f})")
            label = name if name.startswith("dracones") else f"{name} {entry['version']}"
            lines.append(f"| {label} | {' | '.join(cells)} | {entry['train_peak_memory_mb']:.0f} |")
        lines += ["", "Speed and memory of dracones beside"]
        for peer, factors in record["ahead"][size].items():
            speeds = (
                f"{factors['log_prob_speed']:.2f} times in log_prob, {factors['train_speed']:.2f} times in training"
            )
            lines.append(f"- {peer}: {speeds}; memory {factors['train_memory']:.1f} times less")
        lines.append("")
    lines.append(footer(record, "flows/race.py"))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python interpreter that has FrEIA, normflows and nflows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--variants", nargs="*", default=[], choices=VARIANTS, metavar="NAME", help=", ".join(VARIANTS))
    arguments = parser.parse_args()
    peers = arguments.peers or environment("flows", PEERS)
    contestants = [c for c in CONTESTANTS if c == "dracones" or c in PEERS or c in arguments.variants]
    interpreters = {c: peers if c in PEERS else sys.executable for c in contestants}
    record: dict[str, Any] = provenance() | {"rounds": arguments.rounds, "repeats": arguments.repeats}
    start = time.monotonic()
    results = race(contestants, interpreters, arguments.rounds, arguments.repeats)
    record |= {"seconds": round(time.monotonic() - start), "ahead": ahead(results), "results": results}
    write(HERE / "race.json", record)
    (HERE / "race.md").write_text(page(record))
    print(page(record))


if __name__ == "__main__":
    main()
