"""`dracones fit`: learn from normal images and write one file."""

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from dracones.cli.interest import regions_for
from dracones.cli.models import open_normal, read_groups
from dracones.cli.options import (
    AsJson,
    Classifier,
    Device,
    EveryPage,
    Group,
    MaxPixels,
    PixelRate,
    Roi,
    Strict,
    Threads,
    parse_settings,
    read_config,
    require_folder_of,
    runtime,
    use_threads,
    with_paths,
)
from dracones.cli.output import emit, report_skipped, show_groups, skipped_records, tell


def fit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[METHOD] DATA",
            help="DATA: a folder, file, .npz/.npy, data set folder, or built-in set of images. METHOD: see `dracones "
            "methods`; if left out, ensemble for images above 64 px or with a backbone at hand, else glow.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model file to write (safetensors).")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of options; paths in it are relative to it.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="An option, key=value; repeatable.")] = None,
    classifier: Classifier = None,
    classifier_weights: Annotated[
        Path | None, typer.Option("--classifier-weights", help="Its local state dict, safetensors or torch.")
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option("--calibrate", metavar="DATA", help="More normal images, to set the threshold.")
    ] = None,
    false_alarm_rate: Annotated[
        float | None, typer.Option("--false-alarm-rate", help="Share of normal images that may be called anomalous.")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="Keep the rate with this probability, not just on average.")
    ] = None,
    pixel_rate: PixelRate = None,
    roi: Roi = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by", help="What stays on one side when images are kept aside: folder, or a pattern of names."
        ),
    ] = None,
    group: Group = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="With ensemble: go on without a witness that fails, and name it.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget a killed run instead of going on with it.")
    ] = False,
    device: Device = None,
    threads: Threads = None,
    strict: Strict = False,
    max_pixels: MaxPixels = None,
    pages: EveryPage = "first",
    as_json: AsJson = False,
) -> None:
    """Learn what belongs from DATA and write MODEL: `dracones fit DATA -o MODEL` needs no choice of METHOD.

    Beside MODEL, a .toml of the same name holds every option, to be fed back with --config. A killed run goes on
    where it stopped when the same command is given again.
    """
    use_threads(threads)
    require_folder_of(output)
    import dracones
    from dracones.detectors import default_method, forget_checkpoints
    from dracones.training import RichProgress, Silent, launched

    named, data = _method_and_data(words)
    told, options = _options(config, settings or [], named)
    options |= runtime(classifier)
    if classifier_weights is not None:
        options["classifier_weights"] = str(classifier_weights)
    if false_alarm_rate is not None:
        options["false_alarm_rate"] = false_alarm_rate
    if group_by is not None:
        options["group_by"] = group_by
    if keep_going:
        options["keep_going"] = True
    if calibrate is not None:
        # The threshold comes from other images: none of these has to be kept aside.
        options.setdefault("calibration_share", 0.0)
    rank = launched()
    if not rank.is_main:
        # One of several processes speaks for all; what ends the run is said by whom it befalls.
        warnings.simplefilter("ignore")
    images = None
    if told is None:
        images = open_normal(data, strict=strict, max_pixels=max_pixels, pages=pages)
        told = default_method(images, **options)
        if rank.is_main:
            tell(f"no METHOD is named: {told} it is")
    detector = dracones.create(told, **options)
    checkpoint = output.with_name(output.name + ".checkpoint")
    if restart and rank.is_main:
        forget_checkpoints(checkpoint)
    progress = RichProgress() if rank.is_main else Silent()
    if images is None:
        images = open_normal(data, strict=strict, max_pixels=max_pixels, pages=pages)
    groups = read_groups(group)
    aside = groups if calibrate is None else None
    more = None if calibrate is None else open_normal(calibrate, strict=strict, max_pixels=max_pixels, pages=pages)
    regions = regions_for(roi, {"good": images} if more is None else {"good": images, "calibrate": more})
    detector.fit(images, roi=regions["good"], groups=aside, device=device, progress=progress, checkpoint=checkpoint)
    if not rank.is_main:
        return
    if calibrate is not None or confidence is not None or pixel_rate is not None:
        if more is not None and roi is not None and roi.is_dir():
            more = detector.open(more, roi=regions["calibrate"])
        detector.calibrate(
            more,
            false_alarm_rate=false_alarm_rate,
            confidence=confidence,
            pixel_rate=pixel_rate,
            groups=None if calibrate is None else groups,
            progress=progress,
        )
    detector.save(output)
    written = _write_config(output, told, detector)
    forget_checkpoints(checkpoint)
    _conclude(detector, output, written, as_json)


def _method_and_data(words: list[str]) -> tuple[str | None, str]:
    """METHOD, ``None`` where it is left out, and DATA.

    >>> _method_and_data(["parts/good"]), _method_and_data(["glow", "parts/good"])
    ((None, 'parts/good'), ('glow', 'parts/good'))
    """
    if len(words) > 2:
        raise ValueError(f"fit takes [METHOD] DATA, got {len(words)} words: {' '.join(words)}; quote names with spaces")
    return (words[0] if len(words) == 2 else None), words[-1]


def _options(config: Path | None, settings: list[str], method: str | None) -> tuple[str | None, dict[str, Any]]:
    """The method that command or configuration name, and the options of both."""
    options = read_config(config) if config is not None else {}
    named = options.pop("method", method)
    if method not in (None, named):
        raise ValueError(f"{config} is for method {named!r}, but the command asks for {method!r}")
    return named, {**options, **parse_settings(settings)}


def _write_config(output: Path, method: str, detector: Any) -> Path:
    import tomli_w

    from dracones.cli.config_file import without_none
    from dracones.files.atomic import write_text

    options = {"method": method, **without_none(detector.config.model_dump(mode="json"))}
    folder = output.parent.resolve()

    def from_there(path: Path) -> Path:
        whole = path.resolve()
        # Beside the file or below it the two move together; anything else stays where it is.
        return whole.relative_to(folder) if whole.is_relative_to(folder) else whole

    return write_text(output.with_suffix(".toml"), tomli_w.dumps(with_paths(options, from_there)))


def _conclude(detector: Any, output: Path, written: Path, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "model": str(output),
                "config": str(written),
                "digest": detector.provenance["digest"],
                "threshold": detector.threshold,
                "false_alarm_rate": detector.false_alarm_rate,
                "groups": None if detector.groups is None else dict(detector.groups.thresholds),
                "calibration_images": len(detector.calibration),
                # Digests of images are for the next calibration, not for reading.
                "provenance": {key: value for key, value in detector.provenance.items() if key != "met"},
                "skipped": skipped_records(detector.skipped),
            }
        )
        return
    report_skipped(detector.skipped)
    tell(f"{output}: {detector.info.name}, {_learnt(detector)}, {detector.provenance['seconds']:.0f} s")
    for note in detector.method.notes:
        tell(note)
    tell(f"digest {detector.provenance['digest']}")
    if detector.groups is not None:
        show_groups(detector.groups)
    if detector.groups is not None and detector.groups.thresholds:
        tell(
            f"at most {detector.false_alarm_rate:.2%} of normal images of each group above its threshold, from "
            f"{len(detector.calibration)} calibration images"
        )
    elif detector.threshold is None:
        in_groups = "" if detector.groups is None else f" in {len(detector.groups.names)} groups"
        tell(
            f"no threshold yet: {len(detector.calibration)} calibration images{in_groups} are too few for a "
            f"false-alarm rate of {detector.config.false_alarm_rate}; give more with `dracones calibrate`, or a larger "
            "--false-alarm-rate"
        )
    else:
        tell(
            f"threshold {detector.threshold:.6g}: at most {detector.false_alarm_rate:.2%} of normal images above it, "
            f"from {len(detector.calibration)} calibration images"
        )


def _learnt(detector: Any) -> str:
    """From how many images, and what became of those that were held out."""
    train, held = (detector.provenance["images"][part] for part in ("train", "validation"))
    if held and detector.method.learns_held_out:
        return f"learnt from {train + held} images, from {held} of them last, as they told what its witnesses are worth"
    rest = f", {held} held out to stop it or to set its scale" if held else ""
    return f"learnt from {train} images{rest}"
