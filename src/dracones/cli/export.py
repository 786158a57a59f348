"""`dracones export`: a model as one file for a machine without torch."""

from pathlib import Path
from typing import Annotated, cast

import typer

from dracones.cli.options import AsJson, Classifier, Model, require_folder_of, runtime
from dracones.cli.output import emit, tell


def export(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .onnx, .xml or .pt2.")] = Path(
        "line.onnx"
    ),
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option("--image-size", help="Height and width of all images that will come; any without. .xml needs it."),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="float32; fp16 (.onnx, .xml) or int8 (.onnx), with --measure.")
    ] = "float32",
    measure: Annotated[
        str | None,
        typer.Option(
            "--measure",
            metavar="DATA",
            help="Normal images that the fit did not see: what a lower precision changes is measured on them.",
        ),
    ] = None,
    classifier: Classifier = None,
    as_json: AsJson = False,
) -> None:
    """Write MODEL as one file that scores the same without torch; it is proven before it is written.

    In a lower precision scores change, and with them the false-alarm rate that was promised: what --measure finds is
    printed and stands in the file.
    """
    require_folder_of(output)
    import dracones
    from dracones.export import export as write
    from dracones.runtime import Precision

    made = write(
        dracones.load(model, **runtime(classifier)),
        output,
        image_size=image_size,
        precision=cast(Precision, precision),
        measure=measure,
    )
    size = made.path.stat().st_size
    if as_json:
        emit(
            {
                "export": str(made.path),
                "bytes": size,
                "difference": made.difference,
                "seconds": made.seconds,
                "calibrated": made.calibrated,
                "precision": precision,
                "change": None if made.change is None else made.change.to_json(),
            }
        )
        return
    near = f"scores within {made.difference:.1e} of the model's"
    if made.change is not None:
        near = f"in float32 {near}; in {precision}:"
    tell(f"wrote {made.path} ({size / 1e6:.1f} MB, {made.seconds:.0f} s); {near}")
    for line in [] if made.change is None else made.change.describe():
        tell(f"  {line}")
    if not made.calibrated:
        tell(f"the model is not calibrated, so the file gives scores alone: `dracones calibrate {model}` first")
