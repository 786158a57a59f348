"""`dracones score`: a score, a p-value and a verdict per file, written as the files are read."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.map_folder import MapFolder
from dracones.cli.models import load_model, read_groups, use_threads_for
from dracones.cli.options import (
    AsJson,
    BatchSize,
    Classifier,
    Data,
    Device,
    EveryPage,
    Group,
    MaxPixels,
    Model,
    Roi,
    Strict,
    Threads,
    require_folder,
    require_folder_of,
)
from dracones.cli.output import exit_code, report_skipped, table, tell
from dracones.cli.region_files import RegionFiles
from dracones.cli.score_processes import Task, helpers_for, processes_that_win, refuse_processes
from dracones.cli.score_shards import ShardOptions, score_shards


def score(
    model: Model,
    data: Data,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="TABLE",
            help="Table to write: .csv, .jsonl or .parquet; NAME.parquet/ is a folder of files, written on the way.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the table that a killed run of the same command left.")
    ] = False,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", metavar="DIR", help="Folder for heat maps: over their images (PNG) and raw (.npy)."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="DIR", help="Folder for masks of what is hotter than good images are (PNG)."),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            "--regions", metavar="FILE", help="Table of those regions: box, area, peak, p-value, outline; as -o."
        ),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(
            "--shards",
            metavar="DIR",
            help="A table for each tar or Parquet file of DATA (or run of its images) in DIR; the same again goes on.",
        ),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="With --shards: .csv, .jsonl or .parquet tables.")] = ".csv",
    shard_size: Annotated[
        int, typer.Option("--shard-size", min=1, help="With --shards: images in a table where DATA has no shards.")
    ] = 10_000,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="With --shards: actors of a cluster score: local, auto, host:port."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="With --ray: actors, one core each; all cores but one.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", min=1, help="Processes that score, a core each; several where images are small and many."
        ),
    ] = None,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly",
            help="Exit with 1 if any image is called anomalous, with 3 if none is but some could not be judged.",
        ),
    ] = False,
    group: Group = None,
    batch_size: BatchSize = 32,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    roi: Roi = None,
    strict: Strict = False,
    max_pixels: MaxPixels = None,
    pages: EveryPage = "first",
    as_json: AsJson = False,
) -> None:
    """Score the images of DATA with MODEL; larger = more anomalous.

    Rows are written as images are read and nothing is kept in memory. Until the table is whole they lie beside it in
    OUTPUT.unfinished, from where --resume goes on after a kill.

    Exit code: 0; with --fail-on-anomaly 0 if all images were read and are normal, 1 if there are anomalies, 3 if there
    are none but some images could not be judged; 2 for an error.
    """
    in_one = any(each is not None for each in (maps, masks, regions))
    refuse_processes(processes, threads=threads, device=device, ray=ray, in_one=in_one)
    use_threads_for(model, 1 if (processes or 1) > 1 else threads)
    target = _checked(output, resume, maps=maps, masks=masks, regions=regions)
    reading: dict[str, Any] = {"strict": strict, "max_pixels": max_pixels, "pages": pages}
    if shards is not None:
        if roi is not None:
            raise ValueError("--shards scores images within the region that is saved with the model; leave out --roi")
        if resume or output is not None or in_one:
            raise ValueError("--shards writes tables alone and goes on by itself; leave out -o, --resume and maps")
        if group is not None:
            raise ValueError("--shards tells groups as the calibration did; leave out --group")
        _check_shards(shards, kind)
        computing = (batch_size, classifier, device, reading, processes or 1)
        asked = ShardOptions(shards, kind, shard_size, ray, workers, *computing)
        score_shards(model, data, asked, as_json=as_json, fail_on_anomaly=fail_on_anomaly)
        return
    if ray is not None or workers is not None:
        raise ValueError("--ray and --workers score shards; name the folder of their tables with --shards")
    detector = load_model(model, device=device, classifier=classifier)
    _check_model(model, detector, fail_on_anomaly, wants_maps=in_one)
    from dracones.distributed.rows import as_json as pieces
    from dracones.distributed.table import facts_of, fill, place, rows_kept
    from dracones.training import RichProgress

    task = Task(model, data, reading, roi, group, batch_size, {})
    images = task.open(detector)
    drawn = MapFolder(maps, detector.heat_range) if maps is not None else None
    marked = RegionFiles(model, detector.heat_range, masks, regions, images.names) if masks or regions else None
    keepers = [each.keep for each in (drawn, marked) if each is not None]
    facts = facts_of(model, images, max_pixels=max_pixels, pages=pages, **({} if group is None else {"group": group}))
    with ExitStack() as stack:
        journal = stack.enter_context(rows_kept(target, facts, resume=resume))
        if marked is not None:
            stack.enter_context(marked)
        several = processes or (1 if in_one else processes_that_win(detector, len(images) - journal.count))
        helpers = stack.enter_context(helpers_for(task._replace(facts=facts), classifier, several))

        def keep(name: str, score_map: Any) -> None:
            for each in keepers:
                each(name, score_map)

        tally = fill(
            detector,
            images,
            journal,
            batch_size=batch_size,
            groups=read_groups(group),
            keep_map=keep if keepers else None,
            helpers=helpers,
            progress=RichProgress(),
        )
        if drawn is not None:
            drawn.draw(images, RichProgress())
        promised = {"threshold": detector.threshold, "false_alarm_rate": detector.false_alarm_rate}
        if marked is not None:
            marked.finish()
            promised |= {"pixel_threshold": marked.normal.threshold, "pixel_rate": marked.normal.rate}
        if as_json:
            sys.stdout.writelines(pieces(journal.rows, anomalies=tally.anomalies, **promised))
        if target is not None:
            place(journal, target)
    if not as_json:
        _show(tally, target, detector)
        if drawn is not None:
            tell(drawn.describe())
        if marked is not None:
            tell(marked.describe())
        report_skipped(tally.skipped, unread=tally.unread, others=tally.others)
    for note in images.notes:
        tell(f"note: {note}")
    if fail_on_anomaly:
        raise SystemExit(exit_code(anomalies=tally.anomalies, unread=tally.unread))


def _checked(output: str | None, resume: bool, *, maps: Path | None, masks: Path | None, regions: Path | None) -> Any:
    """The table to write; what could not be written is refused before the work that would fill it."""
    require_folder_of(regions)
    for folder in filter(None, (maps, masks)):
        require_folder(folder)
    if regions is not None:
        from dracones.report import table_kind

        table_kind(regions)
    if resume and output is None:
        raise ValueError("--resume goes on with a table; name it with --output")
    if resume and (maps or masks or regions):
        raise ValueError(
            "--maps, --masks and --regions are of all images in one run; leave out --resume, or score without them"
        )
    if output is None:
        return None
    from dracones.distributed.parts import refuse_other_folder
    from dracones.distributed.table import Target
    from dracones.report import table_kind

    target = Target.of(output)
    if target.in_parts and target.path.suffix.lower() == ".parquet":
        if not target.path.is_dir():
            require_folder_of(target.path)
        refuse_other_folder(target.path)
    else:
        require_folder_of(target.path)
        if target.in_parts:
            raise ValueError(f"{output}: -o takes one file or NAME.parquet/; --shards writes folders of other tables")
    table_kind(target.path)
    if target.journal.exists() and not resume:
        left = f"{target.journal} holds the rows of a killed run"
        tell(f"note: {left}; they are scored anew (--resume goes on from them)")
    return target


def _check_shards(folder: Path, kind: str) -> None:
    from dracones.report import table_kind

    if kind.startswith("."):
        table_kind(f"scores{kind}")
    else:
        raise ValueError(f"--kind is .csv, .jsonl or .parquet; got {kind!r}")
    require_folder(folder)


def _check_model(model: Path, detector: Any, fail_on_anomaly: bool, *, wants_maps: bool) -> None:
    if fail_on_anomaly and detector.false_alarm_rate is None:
        raise ValueError(
            f"{model} has no threshold to fail on; set one with `dracones calibrate {model} NORMAL_IMAGES`"
        )
    if wants_maps and not detector.gives_maps:
        if "map" in detector.info.gives:
            raise ValueError(
                f"{model} was fitted without heat maps; fit {detector.info.name} with them (its options: `dracones "
                f"methods {detector.info.name}`), or leave --maps, --masks and --regions out"
            )
        raise ValueError(
            f"{detector.info.name} gives no heat maps of whole images; `dracones methods` lists those that do, "
            "and every method gives them in tiles: fit with --set tile=[64,64]"
        )


def _show(tally: Any, target: Any, detector: Any) -> None:
    worst = tally.highest
    title = (
        f"the {len(worst)} most anomalous of {tally.scored}" if tally.scored > len(worst) else f"{tally.scored} images"
    )
    verdict_of = {True: "anomaly", False: "normal", None: "uncalibrated"}
    columns = {
        "image": [row["path"] for row in worst],
        "score": [row["score"] for row in worst],
        "p-value": [row["p_value"] for row in worst],
        "verdict": [verdict_of[row["is_anomaly"]] for row in worst],
    }
    if any(row["witness"] for row in worst):
        columns["because of"] = [row["witness"] for row in worst]
    table(title, list(columns), [list(row) for row in zip(*columns.values(), strict=True)])
    if detector.threshold is not None:
        tell(
            f"{tally.anomalies} of {tally.scored} above the threshold {detector.threshold:.6g} "
            f"(promised false-alarm rate {detector.false_alarm_rate:.2%})"
        )
    elif detector.false_alarm_rate is not None:
        tell(
            f"{tally.anomalies} of {tally.scored} above the thresholds of their groups "
            f"(promised false-alarm rate {detector.false_alarm_rate:.2%} in each)"
        )
    change = getattr(detector, "change", None)
    if change is not None:
        tell(f"the file is in {detector.precision}; when it was written:")
        for line in change.describe():
            tell(f"  {line}")
    if target is not None:
        tell(f"wrote {target} ({tally.scored} scored, {tally.unread + tally.others} skipped)")
