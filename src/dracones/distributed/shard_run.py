"""A run over many shards, which a second run of the same command takes up: each shard is scored once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dracones.distributed.rows import Tally
from dracones.distributed.shards import MANIFEST, Plan, Shard
from dracones.files.journal import Journal

Work = Callable[[Sequence[Shard]], Iterator[tuple[Shard, Mapping[str, Any]]]]
"""Scores shards, in any order, and gives each with its counts as it is done."""


class ShardsFailed(ValueError):  # noqa: N818 (reads as what it says)
    """Some shards could not be opened; all others are done."""


def run(plan: Plan, work: Work, folder: Path, kind: str, facts: Mapping[str, Any], *, progress: Any = None) -> Tally:
    """Score what is not done yet and count everything.

    The manifest in ``folder`` holds the model's digest, the list's, and a line for each shard that is done. A shard
    counts as done when its line and its table are there; its table takes its place whole, so that scoring it again
    after a kill repeats no row.

    Raises:
        ValueError: the folder holds the scores of another model, list or way of reading.
        ShardsFailed: shards that could not be opened, with the reasons of the first few.
        OSError: the disk refuses, or another run is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tally = Tally(highest=0)
    failed: list[str] = []
    with Journal.resume(folder / MANIFEST, {**facts, "shards": len(plan.shards), "list": plan.digest}) as manifest:
        waiting = {shard.name: shard for shard in plan.shards}
        for line in manifest.rows():
            shard = waiting.get(line["shard"])
            if shard is not None and shard.table(folder, kind).exists():
                tally.add_counts(line)
                del waiting[shard.name]
        if progress is not None:
            progress.start(len(plan.shards), "scoring shards")
            progress.advance(len(plan.shards) - len(waiting))
        try:
            for shard, counts in work(list(waiting.values())):
                if "failed" in counts:
                    failed.append(str(counts["failed"]))
                else:
                    manifest.append([{"shard": shard.name, **counts}])
                    tally.add_counts(counts)
                if progress is not None:
                    progress.advance(1)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"stopped; what is done lies in {folder}: the same command goes on") from None
        finally:
            if progress is not None:
                progress.finish()
    if failed:
        raise ShardsFailed(
            f"{len(failed)} of {len(plan.shards)} shards could not be opened, the others are done: "
            f"{'; '.join(failed[:5])}{'; ...' if len(failed) > 5 else ''}"
        )
    return tally
