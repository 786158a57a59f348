"""`dracones update`: a model that takes in further good images."""

from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.interest import regions_for, within
from dracones.cli.models import open_normal
from dracones.cli.options import AsJson, Device, Model, Roi, Strict, Threads, require_folder_of, use_threads
from dracones.cli.output import emit, report_skipped, skipped_records, tell


def update(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="GOOD", help="Further good images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The new model file; MODEL stays as it is.")],
    calibrate: Annotated[
        str | None, typer.Option("--calibrate", metavar="DATA", help="Good images that set the threshold, beside GOOD.")
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Take in images of which MODEL calls most anomalous: a new kind of good part."),
    ] = False,
    roi: Roi = None,
    device: Device = "cpu",
    threads: Threads = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Have MODEL learn on from GOOD and write a new model, calibrated anew.

    Memories and Gaussians (patchcore, padim, and an ensemble's) learn on; what is trained is left as it is. A share of
    GOOD is kept aside to calibrate, as in a fit.
    """
    use_threads(threads)
    require_folder_of(output)
    import dracones
    from dracones.detectors import update as learn_on
    from dracones.training import RichProgress

    before = dracones.load(model, device=device or "cpu")
    sets = {"good": open_normal(data, strict=strict)}
    if calibrate is not None:
        sets["calibrate"] = open_normal(calibrate, strict=strict)
    regions = regions_for(roi, sets)
    opened = {word: within(model, before, images, regions[word]) for word, images in sets.items()}
    detector, said = learn_on(
        before, opened["good"], calibrate=opened.get("calibrate"), anyway=anyway, progress=RichProgress()
    )
    detector.save(output)
    step = detector.provenance["updates"][-1]
    if as_json:
        emit(
            {
                "model": str(output),
                "digest": detector.provenance["digest"],
                "update": step,
                "threshold": detector.threshold,
                "false_alarm_rate": detector.false_alarm_rate,
                "calibration_images": len(detector.calibration),
                "skipped": skipped_records(detector.skipped),
            }
        )
        return
    report_skipped(detector.skipped)
    tell(f"{output}: {step['images']['learnt']} more images than {model}")
    for sentence in said:
        tell(f"  {sentence}")
    if detector.threshold is None:
        tell(
            f"no threshold: {len(detector.calibration)} calibration images are too few for the rate of before; give "
            f"more with `dracones calibrate {output} NORMAL_IMAGES`"
        )
    else:
        tell(
            f"threshold {detector.threshold:.6g}: at most {detector.false_alarm_rate:.2%} of normal images above it, "
            f"from {len(detector.calibration)} calibration images"
        )
