"""`dracones score --shards`: many tables instead of one, on this machine or on a Ray cluster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dracones.cli.models import load_model, open_data, use_threads_for
from dracones.cli.output import emit, exit_code, tell


class ShardOptions(NamedTuple):
    """What `dracones score` was asked for, beside MODEL and DATA."""

    folder: Path
    kind: str
    size: int
    ray: str | None
    workers: int | None
    batch_size: int
    classifier: str | None
    device: str | None
    reading: Mapping[str, Any]
    processes: int


def score_shards(model: Path, data: str, options: ShardOptions, *, as_json: bool, fail_on_anomaly: bool) -> None:
    """Score DATA shard by shard and sum up the counts."""
    from dracones.distributed.shard_run import run
    from dracones.distributed.shards import plan
    from dracones.distributed.table import digest_of
    from dracones.training import RichProgress

    if options.ray is not None and options.device not in (None, "cpu"):
        raise ValueError("--ray asks the cluster for processor cores; leave out --device")
    if options.ray is not None and Path(data).exists():
        data = str(Path(data).absolute())  # actors may stand in other folders
    detector = load_model(model, device=options.device, classifier=options.classifier)
    shards = plan(data, options.size, partial(open_data, model, **options.reading))
    facts = {
        "manifest": 1,
        "model": digest_of(model),
        "table": options.kind,
        "batch_size": options.batch_size,
        **{name: value for name, value in options.reading.items() if name != "strict"},
    }
    work = partial(_work, model, detector, options)
    tally = run(shards, work, options.folder, options.kind, facts, progress=RichProgress())
    if as_json:
        emit({"shards": len(shards.shards), **tally.counts(), "threshold": detector.threshold})
    else:
        if detector.threshold is not None:
            tell(
                f"{tally.anomalies} of {tally.scored} above the threshold {detector.threshold:.6g} "
                f"(promised false-alarm rate {detector.false_alarm_rate:.2%})"
            )
        tell(
            f"wrote {len(shards.shards)} tables to {options.folder} ({tally.scored} scored, {tally.unread} unreadable, "
            f"{tally.others} other files)"
        )
    if fail_on_anomaly:
        raise SystemExit(exit_code(anomalies=tally.anomalies, unread=tally.unread))


def _work(
    model: Path, detector: Any, options: ShardOptions, shards: Sequence[Any]
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    if options.ray is None:
        return _here(model, detector, options, shards)
    from dracones.distributed.on_ray import on_ray

    there = options._replace(folder=options.folder.absolute())
    return on_ray(shards, model, partial(_scorer, there), address=options.ray, workers=options.workers)


def _here(
    model: Path, detector: Any, options: ShardOptions, shards: Sequence[Any]
) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """On this machine, in as many processes as were asked for."""
    from dracones.distributed.processes import Helpers

    scorer = _scorer(options, model, detector)
    helpers = min(options.processes, len(shards)) - 1
    with Helpers(partial(_scoring, options, model), max(0, helpers), lambda shard: f"shard {shard.name}") as others:
        yield from zip(shards, others.share(shards, scorer.score), strict=True)


def _scoring(options: ShardOptions, model: Path) -> Callable[[Any], Mapping[str, Any]]:
    """What a process beside the first does with a shard."""
    use_threads_for(model, 1)
    score: Callable[[Any], Mapping[str, Any]] = _scorer(options, model).score
    return score


def _scorer(options: ShardOptions, model: Path, detector: Any = None) -> Any:
    """What scores shards, in this process or an actor's."""
    from dracones.distributed.shards import ShardScorer

    found = detector or load_model(model, device=options.device, classifier=options.classifier)
    opened = partial(open_data, model, **options.reading)
    return ShardScorer(found, opened, options.folder, options.kind, options.batch_size)
