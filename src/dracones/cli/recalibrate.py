"""`dracones recalibrate`: confirmed good images join a new calibration."""

from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.options import (
    AsJson,
    Classifier,
    Data,
    Device,
    Group,
    Model,
    Threads,
    require_folder_of,
    runtime,
    use_threads,
)
from dracones.cli.output import emit, tell


def recalibrate(
    model: Model,
    confirmed: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="The new model file; MODEL stays as it is.")],
    audit_share: Annotated[
        float,
        typer.Option(
            "--audit-share", help="Share of all images that were looked at whatever their verdict (`dracones audit`)."
        ),
    ],
    without_old: Annotated[
        bool, typer.Option("--without-old", help="Calibrate on the confirmed images alone, after a change.")
    ] = False,
    false_alarm_rate: Annotated[
        float | None, typer.Option("--false-alarm-rate", help="As before if not given.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="Keep the rate with this probability, not just on average.")
    ] = None,
    group: Group = None,
    classifier: Classifier = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Write a new model whose threshold also rests on the good images of CONFIRMED.

    Only images of the audit sample join: a threshold from images that passed would be too low, as none of them lies
    above the old one. --audit-share 1 says that a human looked at all images of the time, and all good ones are here.
    """
    use_threads(threads)
    require_folder_of(output)
    if output.exists() and model.exists() and output.samefile(model):
        raise ValueError(f"{output} is MODEL itself, which is kept as it is; name another file")
    import dracones
    from dracones.cli.models import read_groups
    from dracones.detectors import recalibrate as join
    from dracones.training import RichProgress

    old = dracones.load(model, device=device or "cpu", **runtime(classifier))
    found = join(
        old,
        confirmed,
        audit_share=audit_share,
        with_old=not without_old,
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
        groups=read_groups(group),
        progress=RichProgress(),
    )
    new = found.detector
    written = new.save(output)
    left_out = {reason: count for reason, count in found.left_out.items() if count}
    if as_json:
        emit(
            {
                "model": str(written),
                "threshold": new.threshold,
                "old_threshold": old.threshold,
                **({} if new.groups is None else {"thresholds": dict(new.groups.thresholds)}),
                "false_alarm_rate": new.false_alarm_rate,
                "calibration_images": len(new.calibration),
                "old_images": found.kept,
                "joined": found.joined,
                "left_out": left_out,
            }
        )
        return
    before = "none" if old.threshold is None else f"{old.threshold:.6g}"
    if new.groups is None:
        said, above = f"threshold {new.threshold:.6g} (was {before})", "it"
    else:
        listed = (f"{name} {threshold:.6g}" for name, threshold in new.groups.thresholds.items())
        said, above = f"thresholds {', '.join(listed)}", "that of their group"
    tell(
        f"{written}: {said}, at most {new.false_alarm_rate:.2%} of normal images above {above}; from {found.joined} "
        f"confirmed images and {found.kept} of the old calibration"
    )
    for reason, count in left_out.items():
        tell(f"left out: {count} {reason}")
    for name, tail in found.tails.items():
        tell(f"of the confirmed images{f' of group {name}' if name else ''} {tail.words}")
