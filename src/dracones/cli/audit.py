"""`dracones audit`: which images a human has to look at, whatever the verdict."""

from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.models import open_normal
from dracones.cli.options import AsJson, Data, EveryPage, MaxPixels, Strict, require_folder_of
from dracones.cli.output import emit, report_skipped, skipped_records, table, tell

_SHOWN = 20


def audit(
    data: Data,
    share: Annotated[float, typer.Option("--share", help="Share of the images to look at, in (0, 1].")] = 0.05,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table of them to write: .csv, .jsonl or .parquet.")
    ] = None,
    strict: Strict = False,
    max_pixels: MaxPixels = None,
    pages: EveryPage = "first",
    as_json: AsJson = False,
) -> None:
    """Choose the images of DATA that a human looks at whatever their verdict: by a coin that their pixels toss.

    Only such images may calibrate anew (`dracones recalibrate`). The same image is chosen whenever it is asked for.
    """
    require_folder_of(output)
    from dracones.detectors import audit as choose
    from dracones.report import table_kind, write_table
    from dracones.training import RichProgress

    if output is not None:
        table_kind(output)
    images = open_normal(data, strict=strict, max_pixels=max_pixels, pages=pages)
    inside = choose(images, share, RichProgress())
    names = [images.name(int(place)) for place in inside.nonzero()[0]]
    if output is not None:
        write_table(output, [{"path": name} for name in names])
    if as_json:
        emit({"audit": names, "images": len(images), "share": share, "skipped": skipped_records(images.skipped)})
        return
    table(f"{len(names)} of {len(images)} images to look at", ["image"], [[name] for name in names[:_SHOWN]])
    report_skipped(images.skipped)
    if output is not None:
        tell(f"wrote {output}")
    tell(
        "put those that are good, alarms among them, in a folder, and `dracones recalibrate MODEL FOLDER "
        f"--audit-share {share:g} -o NEW` lets them join the calibration"
    )
