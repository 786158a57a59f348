"""`dracones score`: a score, a p-value and a verdict per file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.map_folder import MapFolder
from dracones.cli.models import load_model, open_data, use_threads_for
from dracones.cli.options import (
    AsJson,
    BatchSize,
    Classifier,
    Data,
    Device,
    EveryPage,
    MaxPixels,
    Model,
    Strict,
    Threads,
    require_folder,
    require_folder_of,
)
from dracones.cli.output import emit, exit_code, report_skipped, skipped_records, table, tell

_SHOWN = 20


def score(
    model: Model,
    data: Data,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table to write: .csv, .jsonl or .parquet.")
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", metavar="DIR", help="Folder for heat maps: over their images (PNG) and raw (.npy)."),
    ] = None,
    fail_on_anomaly: Annotated[
        bool,
        typer.Option(
            "--fail-on-anomaly",
            help="Exit with 1 if any image is called anomalous, with 3 if none is but some could not be judged.",
        ),
    ] = False,
    batch_size: BatchSize = 32,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    strict: Strict = False,
    max_pixels: MaxPixels = None,
    pages: EveryPage = "first",
    as_json: AsJson = False,
) -> None:
    """Score the images of DATA with MODEL; larger = more anomalous.

    Exit code: 0; with --fail-on-anomaly 0 if all images were read and are normal, 1 if there are anomalies, 3 if there
    are none but some images could not be judged; 2 for an error.
    """
    use_threads_for(model, threads)
    require_folder_of(output)
    if maps is not None:
        require_folder(maps)
    from dracones.report import table_kind, write_table
    from dracones.training import RichProgress

    if output is not None:
        table_kind(output)
    detector = load_model(model, device=device, classifier=classifier)
    if fail_on_anomaly and detector.threshold is None:
        raise ValueError(
            f"{model} has no threshold to fail on; set one with `dracones calibrate {model} NORMAL_IMAGES`"
        )
    if maps is not None and not detector.gives_maps:
        if "map" in detector.info.gives:
            raise ValueError(
                f"{model} was fitted without heat maps; fit {detector.info.name} with them (its options: `dracones "
                f"methods {detector.info.name}`), or leave --maps out"
            )
        raise ValueError(
            f"{detector.info.name} gives no heat maps of whole images; `dracones methods` lists those that do, "
            "and every method gives them in tiles: fit with --set tile=[64,64]"
        )
    images = detector.adopt(open_data(model, data, strict=strict, max_pixels=max_pixels, pages=pages))
    drawn = MapFolder(maps, detector.heat_range) if maps is not None else None
    rows = []
    for verdict in detector.iterate(images, batch_size=batch_size, maps=drawn is not None, progress=RichProgress()):
        rows.append(_row(verdict))
        if drawn is not None and verdict.map is not None:
            drawn.keep(verdict.path, verdict.map)
    if drawn is not None:
        drawn.draw(images, RichProgress())
    skipped = images.skipped
    rows += [_row_of_skipped(item) for item in skipped]
    if output is not None:
        write_table(output, rows)
    anomalies = sum(row["is_anomaly"] is True for row in rows)
    if as_json:
        emit(
            {
                "images": rows,
                "anomalies": anomalies,
                "threshold": detector.threshold,
                "false_alarm_rate": detector.false_alarm_rate,
                "skipped": skipped_records(skipped),
            }
        )
    else:
        _show(rows, output, anomalies, len(skipped), detector)
        if drawn is not None:
            tell(drawn.describe(detector.false_alarm_rate))
        report_skipped(skipped)
    for note in images.notes:
        tell(f"note: {note}")
    if fail_on_anomaly:
        raise SystemExit(exit_code(anomalies=anomalies, skipped=skipped))


def _row(verdict: Any) -> dict[str, Any]:
    return {
        "path": verdict.path,
        "score": verdict.score,
        "p_value": verdict.p_value,
        "is_anomaly": verdict.is_anomaly,
        "reason": None,
    }


def _row_of_skipped(item: Any) -> dict[str, Any]:
    return {"path": str(item.name), "score": None, "p_value": None, "is_anomaly": None, "reason": str(item.reason)}


def _show(rows: list[dict[str, Any]], output: Path | None, anomalies: int, skipped: int, detector: Any) -> None:
    scored = [row for row in rows if row["score"] is not None]
    worst = sorted(scored, key=lambda row: -row["score"])[:_SHOWN]
    title = f"the {len(worst)} most anomalous of {len(scored)}" if len(scored) > len(worst) else f"{len(scored)} images"
    verdict_of = {True: "anomaly", False: "normal", None: "uncalibrated"}
    table(
        title,
        ["image", "score", "p-value", "verdict"],
        [[row["path"], row["score"], row["p_value"], verdict_of[row["is_anomaly"]]] for row in worst],
    )
    if detector.threshold is not None:
        tell(
            f"{anomalies} of {len(scored)} above the threshold {detector.threshold:.6g} "
            f"(promised false-alarm rate {detector.false_alarm_rate:.2%})"
        )
    if output is not None:
        tell(f"wrote {output} ({len(scored)} scored, {skipped} skipped)")
