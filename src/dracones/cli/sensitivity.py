"""`dracones sensitivity`: how small and how faint a made defect may be and still be found."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.interest import within
from dracones.cli.models import open_normal
from dracones.cli.options import (
    AsJson,
    BatchSize,
    Classifier,
    Device,
    Model,
    Roi,
    Threads,
    require_folder_of,
    runtime,
    use_threads,
)
from dracones.cli.output import emit, table, tell


def sensitivity(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="GOOD", help="Good images that MODEL has not learnt from.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="A page to write, with curves and pictures (HTML).")
    ] = None,
    rates: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Table to write: .csv, .jsonl or .parquet.")
    ] = None,
    defects: Annotated[int, typer.Option("--defects", min=1, help="Of each kind, size and contrast.")] = 20,
    sizes: Annotated[
        list[float] | None, typer.Option("--size", help="Share of the shorter side; repeatable. .02 to .32 by default.")
    ] = None,
    contrasts: Annotated[
        list[float] | None, typer.Option("--contrast", help="Share of the full change; repeatable. .25, .5, 1.")
    ] = None,
    roi: Roi = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of images, places and shapes.")] = 0,
    batch_size: BatchSize = 32,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make defects of graded size and contrast on GOOD and count those that raise MODEL's alarm.

    Five kinds: a pasted patch, a scar, foreign texture, blur, a missing part. They are synthetic: they tell what can be
    seen at all, and not how real defects will fare.
    """
    use_threads(threads)
    require_folder_of(output)
    require_folder_of(rates)
    import dracones
    from dracones.detectors import sensitivity as measure
    from dracones.report import table_kind, write_table
    from dracones.training import RichProgress

    if rates is not None:
        table_kind(rates)
    graded: dict[str, Any] = {}
    graded |= {"sizes": sizes} if sizes else {}
    graded |= {"contrasts": contrasts} if contrasts else {}
    detector = dracones.load(model, device=device or "cpu", **runtime(classifier))
    images = within(model, detector, open_normal(data, strict=False), roi)
    found = measure(
        detector, images, defects=defects, seed=seed, batch_size=batch_size, progress=RichProgress(), **graded
    )
    if rates is not None:
        write_table(rates, found.rows())
    if output is not None:
        from dracones.cli.sensitivity_page import sensitivity_page

        page = sensitivity_page(detector, found)
        page.provenance(model=str(model), good=images.name_of_source, seed=seed)
        page.write(output)
    if as_json:
        emit(found.to_json())
        return
    _show(found)
    for written in filter(None, (output, rates)):
        tell(f"wrote {written}")


def _show(found: Any) -> None:
    sizes = sorted({cell.size for cell in found.cells})
    rows: dict[tuple[str, float], list[Any]] = {}
    for cell in found.cells:
        share = cell.found.share
        words = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
        rows.setdefault((cell.kind, cell.contrast), [cell.kind, f"{cell.contrast:.0%}"]).append(words)
    table(
        f"made defects found, of {found.cells[0].found.total} each [95 % interval]",
        ["kind", "contrast", *(f"size {size:.3g}" for size in sizes)],
        list(rows.values()),
    )
    good = found.good
    tell(
        f"at the threshold that promises {found.false_alarm_rate:.2%} false alarms; {good.count} of {good.total} good "
        f"images raise one"
    )
    for note in found.notes:
        tell(note)
