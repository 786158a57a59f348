"""The page of these measurements, from their records.

python -m benchmarks.scale.page
"""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.records import read

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
ASKED = 1.7
"""Times as fast as one core two are to be."""
BUSY = 1.6
"""Load of two cores above which other work took part."""


def _memory(record: dict[str, Any]) -> list[str]:
    runs = record["runs"]
    base = {run["source"]: run["highest_mib"] for run in reversed(runs)}
    lines = [
        "| source | images | highest memory, MiB | over the fewest images, MiB | CPU s | images per CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for run in runs:
        more = run["highest_mib"] - base[run["source"]]
        lines.append(
            f"| {run['source']} | {run['images']:,} | {run['highest_mib']:.0f} | {more:+.0f} | "
            f"{run['cpu_seconds']:.1f} | {run['images_per_cpu_second']:,.0f} |"
        )
    return lines


def _kills(record: dict[str, Any]) -> list[str]:
    lines = ["| what | kills | files | equal to the undisturbed |", "|---|---|---|---|"]
    for what, found in record.items():
        if not isinstance(found, dict):
            continue
        lines.append(f"| {what} | {len(found['kills'])} | {found['files']} | {found['equal']} |")
    return lines


def _cores(record: dict[str, Any]) -> list[str]:
    lines = ["| way | wall s, median | CPU s, median | times as fast | CPU to one thread |", "|---|---|---|---|---|"]
    for way, called in (("one", "one thread"), ("threads", "two threads"), ("processes", "two processes")):
        turns = [turn for turn in record["turns"] if turn["way"] == way]
        wall, cpu = (median(turn[what] for turn in turns) for what in ("seconds", "cpu_seconds"))
        fast = record["ways"].get(way, {"times_as_fast": 1.0, "cpu_to_one": 1.0})
        lines.append(f"| {called} | {wall:.1f} | {cpu:.1f} | {fast['times_as_fast']:.2f} | {fast['cpu_to_one']:.2f} |")
    fast, loads = record["ways"]["processes"], [turn["load"] for turn in record["turns"]]
    rows = "equal" if record["equal_rows"] else "NOT equal"
    lines += ["", f"The start of the second process is counted. All rows are {rows}. Asked: {ASKED} times as fast."]
    if max(loads) <= BUSY:
        met = "met" if fast["times_as_fast"] >= ASKED else "not met"
        lines.append(f"Two processes, which small images get: {fast['times_as_fast']:.2f} times; {met}.")
    else:
        lines.append(
            f"The load was {min(loads):.1f} to {max(loads):.1f}: other work shared the cores, and who runs two"
            f" processes gets more of them, so that {fast['times_as_fast']:.2f} times is no measure. CPU time says"
            f" what an idle machine could give at most: 2 / {fast['cpu_to_one']:.2f} = {2 / fast['cpu_to_one']:.2f}."
        )
    return lines


def _stamp(record: dict[str, Any]) -> str:
    return f"Commit `{record['commit'][:7]}`, {record['machine']}, load {record['load_at_start']:g}."


def text() -> str:
    """The page."""
    memory, kills, cores = (read(HERE / f"{name}.json") for name in ("memory", "kills", "cores"))
    lines = [
        "# Scale: memory, kills, cores",
        "",
        "`python -m benchmarks.scale.memory --work DIR -o benchmarks/scale/memory.json`. " + _stamp(memory),
        "",
        f"`dracones score` of {memory['image']} images with the least Glow, a process a row; libraries make the base.",
        "",
        *_memory(memory),
        "",
        "`python -m benchmarks.scale.kills --work DIR -o benchmarks/scale/kills.json`. " + _stamp(kills),
        "",
        f"`kill -9` at random moments over {kills['images']:,} images, each time resumed; files byte by byte.",
        "",
        *_kills(kills),
        "",
        "`python -m benchmarks.scale.cores --work DIR -o benchmarks/scale/cores.json`. " + _stamp(cores),
        "",
        f"{cores['turns'][0]['images']:,} images ({cores['image']}) with a tiny Glow, as `dracones score` takes them.",
        "",
        *_cores(cores),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
