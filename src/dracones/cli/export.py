"""`dracones export`: a model as one file for a machine without torch."""

from pathlib import Path
from typing import Annotated

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
    classifier: Classifier = None,
    as_json: AsJson = False,
) -> None:
    """Write MODEL as one file that scores the same without torch; it is proven before it is written."""
    require_folder_of(output)
    import dracones
    from dracones.export import export as write

    made = write(dracones.load(model, **runtime(classifier)), output, image_size=image_size)
    size = made.path.stat().st_size
    if as_json:
        emit(
            {
                "export": str(made.path),
                "bytes": size,
                "difference": made.difference,
                "seconds": made.seconds,
                "calibrated": made.calibrated,
            }
        )
        return
    tell(
        f"wrote {made.path} ({size / 1e6:.1f} MB, {made.seconds:.0f} s); scores within {made.difference:.1e} of "
        "the model's"
    )
    if not made.calibrated:
        tell(f"the model is not calibrated, so the file gives scores alone: `dracones calibrate {model}` first")
