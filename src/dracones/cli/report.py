"""`dracones report`: one self-contained HTML page on how a model does on two sets of images."""

from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.models import load_model, use_threads_for
from dracones.cli.options import (
    Anomalous,
    AsJson,
    BatchSize,
    Category,
    Classifier,
    Device,
    Masks,
    Model,
    NoMasks,
    Normal,
    Roi,
    Threads,
    require_folder_of,
)
from dracones.cli.output import emit, tell
from dracones.cli.sides import Sides


def report(
    model: Model,
    normal: Normal = None,
    anomalous: Anomalous = None,
    masks: Masks = None,
    no_masks: NoMasks = False,
    category: Category = None,
    roi: Roi = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also how small a made defect on the normal images it sees.")
    ] = False,
    batch_size: BatchSize = 32,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page: verdict, metrics with intervals, histograms, curves, example images, heat maps."""
    use_threads_for(model, threads)
    require_folder_of(output)
    from dracones.cli.report_page import evaluation_page
    from dracones.detectors.evaluation import evaluate as judge
    from dracones.training import RichProgress

    detector = load_model(model, device=device, classifier=classifier)
    sides = Sides(normal, anomalous, masks, no_masks, category, roi).opened(model, detector)
    found = judge(detector, *sides, batch_size=batch_size, progress=RichProgress())
    page = evaluation_page(detector, found, *sides)
    if sensitivity:
        from dracones.cli.sensitivity_page import add_sensitivity
        from dracones.detectors import sensitivity as measure

        add_sensitivity(page, detector, measure(detector, sides[0], batch_size=batch_size, progress=RichProgress()))
    page.provenance(model=str(model), normal=sides[0].name_of_source, anomalous=sides[1].name_of_source)
    written = page.write(output)
    numbers = page.save_json(written.with_suffix(".json"))
    if as_json:
        emit({"report": str(written), "numbers": str(numbers), **found.to_json()})
    else:
        tell(f"wrote {written} and {numbers}")
