"""`dracones monitor`: whether the images of a table of scores have changed, with a bound on false alarms."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.models import calibration_of
from dracones.cli.options import AsJson, require_folder_of
from dracones.cli.output import ANOMALY_EXIT, UNJUDGED_EXIT, emit, table, tell

_PICTURES = (".png", ".svg", ".html")


def monitor(
    tables: Annotated[
        list[Path], typer.Argument(metavar="SCORES...", help="Tables that `dracones score -o` wrote, oldest first.")
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Compare with its calibration images; without it, with the images before."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", help="What tells the source of an image: a column, folder, or a pattern of paths."),
    ] = None,
    false_alarm_rate: Annotated[
        float, typer.Option("--false-alarm-rate", help="Bound on a false alarm of a stream, ever.")
    ] = 0.01,
    state: Annotated[
        Path | None, typer.Option("--state", help="File to go on from and to keep what was seen in (JSON).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Curve to write: .png, .svg, or .html for a page.")
    ] = None,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="Exit with 1 if images have changed, 3 if none could be said to.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the scores of images in their order: have the images changed?

    Exit code: 0; with --fail-on-change 0 if every image has a score and nothing has changed, 1 if images have changed,
    3 if not but some images have no score; 2 for an error.
    """
    require_folder_of(output)
    require_folder_of(state)
    if output is not None and output.suffix.lower() not in _PICTURES:
        raise ValueError(f"a curve is written as {', '.join(_PICTURES)}; got {output.name!r}")
    from dracones.monitoring import Monitor, rows_of, summary, take, watch

    calibration = None if model is None else calibration_of(model)
    scores = None if calibration is None else _scores_of(calibration)
    if isinstance(scores, dict) and source is None:
        source = "group"  # as `score` calls the column
    if state is not None and state.exists():
        watching = Monitor.restore(state)
        _check_same(watching, state, scores, false_alarm_rate)
    else:
        watching = Monitor(() if scores is None else scores, false_alarm_rate=false_alarm_rate)
    check = None if calibration is None else _same_model(calibration, model)
    rows = list(rows_of(tables, source))  # a table that is refused leaves nothing half counted
    take(watching, tables)
    found = watch(watching, rows, check)
    if state is not None:
        watching.save(state)
    streams = summary(watching, found)
    if output is not None:
        _draw(output, watching, found, streams, tables)
    if as_json:
        emit({"streams": streams, "state": watching.state(), "unjudged": [path for path, _ in found.unjudged]})
    else:
        _show(streams, watching, found, output)
    if fail_on_change:
        raise SystemExit(ANOMALY_EXIT if watching.alarm else UNJUDGED_EXIT if found.unjudged else 0)


def _show(rows: list[dict[str, Any]], watching: Any, found: Any, output: Path | None) -> None:
    title = f"evidence of a change (powers of ten; alarm at {watching.threshold / math.log(10):.2f})"
    shown = _readable(rows)
    table(title, list(shown[0]), [list(row.values()) for row in shown])
    streams = "" if len(rows) == 1 else " for each of them"
    tell(
        f"if nothing changes, the probability that an alarm is ever raised is at most {watching.false_alarm_rate:.2%}"
        f"{streams}"
    )
    if found.unjudged:
        path, place = found.unjudged[0]
        tell(f"{len(found.unjudged)} image(s) have no score and were left out, such as {path} ({place})")
    if output is not None:
        tell(f"wrote {output}")


def _readable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Columns for people."""
    return [
        {
            "source": row["source"],
            "images": row["images"],
            "evidence": f"{row['evidence']:.2f}",
            "highest": f"{row['highest']:.2f}",
            "verdict": f"changed: {row['change']}" if row["changed"] else "no change seen",
            "probably since": (row["since_path"] or "an earlier run") if row["changed"] else "",
            "certain at": (row["alarm_path"] or "an earlier run") if row["changed"] else "",
        }
        for row in rows
    ]


def _draw(output: Path, watching: Any, found: Any, rows: list[dict[str, Any]], tables: list[Path]) -> None:
    from dracones.report import Report, evidence_curves

    earlier = {row["source"]: row["images"] - len(found.curves.get(row["source"], ())) for row in rows}
    alarms = {
        row["source"]: row["alarm_at"] - earlier[row["source"]]
        for row in rows
        if row["changed"] and row["alarm_at"] > earlier[row["source"]]
    }
    kind = output.suffix.lower()
    drawn = evidence_curves(found.curves, watching.threshold, alarms=alarms, png=kind == ".png")
    if kind != ".html":
        drawn.write(output)
        return
    changed = [row for row in rows if row["changed"]]
    page = Report("Have the images changed?", subtitle=", ".join(path.name for path in tables))
    page.verdict(
        f"Changed: {', '.join(row['source'] for row in changed)}." if changed else "No change was seen.",
        level="bad" if changed else "good",
        points=[
            f"{row['source']}: {row['change']}, probably since {row['since_path'] or 'an earlier run'}"
            for row in changed
        ],
    )
    page.section("Evidence").figure(
        drawn,
        "Capital of a bet against 'the images are like before'. Where nothing changes it hardly ever grows: the "
        f"probability that a stream ever reaches the alarm is at most {watching.false_alarm_rate:.2%}.",
    ).table(_readable(rows))
    page.write(output)


def _scores_of(calibration: Any) -> Any:
    """What a monitor compares with: scores, or those of each group."""
    if hasattr(calibration, "calibrations"):
        return {name: each.scores for name, each in calibration.calibrations.items()}
    return calibration.scores


def _check_same(watching: Any, state: Path, scores: Any, rate: float) -> None:
    """Refuse to go on with a monitor of other calibration images, or with another bound."""
    if scores is not None and not watching.is_of(scores):
        raise ValueError(f"{state} compares with other calibration images than the model's; name another file")
    if watching.false_alarm_rate != rate:
        raise ValueError(
            f"{state} was begun with --false-alarm-rate {watching.false_alarm_rate:g}, and a bound cannot be changed "
            f"on the way; got {rate:g}"
        )


def _same_model(calibration: Any, model: Path | None) -> Any:
    """A check that a row's p-value is the one that the model's calibration gives its score."""

    def check(row: Any) -> None:
        if row.p_value is None:
            return
        own = getattr(calibration, "calibrations", {}).get(row.source, calibration)
        if hasattr(own, "calibrations"):
            return  # a source without calibration is refused by the monitor itself
        p_value = float(own.p_values([row.score])[0])
        # A tie that rounding decides is one image more or less.
        if abs(p_value - row.p_value) > 2.5 / (len(own) + 1):
            raise ValueError(
                f"{row.place}: {row.path!r} has p-value {row.p_value:.4g}, and {model} gives its score {p_value:.4g}; "
                "was it scored by another model?"
            )

    return check
