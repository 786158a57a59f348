"""`dracones calibrate`: set a threshold with a promised false-alarm rate from normal images alone."""

from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.models import read_groups
from dracones.cli.options import (
    AsJson,
    Classifier,
    Data,
    Device,
    Group,
    Model,
    PixelRate,
    Roi,
    Threads,
    runtime,
    use_threads,
)
from dracones.cli.output import emit, show_groups, tell


def calibrate(
    model: Model,
    data: Data,
    false_alarm_rate: Annotated[
        float | None, typer.Option("--false-alarm-rate", help="Share of normal images that may be called anomalous.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="Keep the rate with this probability, not just on average.")
    ] = None,
    pixel_rate: PixelRate = None,
    roi: Roi = None,
    group: Group = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write; MODEL itself if not given.")
    ] = None,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Set MODEL's threshold from normal images that it was not fitted on."""
    use_threads(threads)
    import dracones
    from dracones.training import RichProgress

    detector = dracones.load(model, device=device or "cpu", **runtime(classifier))
    detector.calibrate(
        data if roi is None else detector.open(data, roi=roi),
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
        pixel_rate=pixel_rate,
        groups=read_groups(group),
        progress=RichProgress(),
    )
    written = detector.save(output or model)
    if as_json:
        emit(
            {
                "model": str(written),
                "threshold": detector.threshold,
                "false_alarm_rate": detector.false_alarm_rate,
                "confidence": confidence,
                "groups": None if detector.groups is None else dict(detector.groups.thresholds),
                "calibration_images": len(detector.calibration),
                "pixel_threshold": None if detector.heat_range is None else detector.heat_range.threshold,
                "pixel_rate": None if detector.heat_range is None else detector.heat_range.rate,
            }
        )
        return
    promise = f"with probability {confidence:.0%}" if confidence else "on average"
    if detector.groups is not None:
        show_groups(detector.groups)
        tell(f"{written}: {promise}, at most {detector.false_alarm_rate:.2%} of each group's normal images above it")
        return
    tell(
        f"{written}: threshold {detector.threshold:.6g}; {promise}, at most {detector.false_alarm_rate:.2%} of normal "
        f"images score above it ({len(detector.calibration)} calibration images)"
    )
    if detector.heat_range is not None:
        tell(f"masks and outlines: {detector.heat_range.meaning()}")
