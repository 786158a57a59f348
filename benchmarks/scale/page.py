"""The page of these measurements, from their records.

python -m benchmarks.scale.page
"""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.records import read
from benchmarks.scale.actors import SHARDS

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
ASKED = 1.7
"""Times as fast as one core two are to be."""
BUSY = 2.0
"""Load above which other work took part: two processes of its own make up to two."""


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


def _actors(record: dict[str, Any]) -> list[str]:
    lines = ["| way | images per s | first shard after, s | tables equal |", "|---|---|---|---|"]
    alone = record["alone"]
    lines.append(f"| alone, one thread | {alone['images_per_second']:,.0f} | {alone['first_shard_after']:.1f} | |")
    for count in (1, 2):
        found = record[f"actors{count}"]
        many = "s" if count > 1 else ""
        lines.append(
            f"| {count} actor{many} | {found['images_per_second']:,.0f} | {found['first_shard_after']:.1f} | "
            f"{found['equal_tables']} of {SHARDS} |"
        )
    killed, core = record["killed"], record["alone"]["images_per_cpu_second"]
    billion = 1e9 / core
    lines += [
        "",
        f"{record['images']:,} images ({record['image']}, {record['bytes_an_image']:.0f} bytes each in Parquet).",
        f"With {killed['actors']} actors, one was killed with -9 after {killed['tables_when_an_actor_was_killed']}"
        f" table(s), the driver after {killed['tables_when_the_driver_was_killed']}; the same command then ended with"
        f" {killed['tables']} tables and {killed['rows']:,} rows, {killed['equal_tables']} of {SHARDS} tables equal to"
        " those that were made alone.",
        "",
        f"On paper, at {core:,.0f} images a CPU second: 10⁹ images are {billion / 1e6:.1f} million core seconds, on"
        f" 1,000 cores {billion / 6e4:.0f} minutes, and {core * 1000 * record['bytes_an_image'] / 1e6:,.0f} MB/s have"
        " to come from the disk, which all machines share: it saturates first.",
    ]
    return lines


def _stamp(record: dict[str, Any]) -> str:
    return f"Commit `{record['commit'][:7]}`, {record['machine']}, load {record['load_at_start']:g}."


def text() -> str:
    """The page."""
    memory, kills, cores, actors = (read(HERE / f"{name}.json") for name in ("memory", "kills", "cores", "actors"))
    lines = [
        "# Scale: memory, kills, cores, actors",
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
        "",
        "`python -m benchmarks.scale.actors --work DIR -o benchmarks/scale/actors.json`. " + _stamp(actors),
        "",
        *_actors(actors),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
