"""`dracones verify`: whether a model file is whole, and what it is."""

from pathlib import Path
from typing import Annotated

import typer

from dracones.cli.options import AsJson, Classifier, runtime
from dracones.cli.output import ERROR_EXIT, emit, tell


def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A file that `dracones fit` wrote.")],
    classifier: Classifier = None,
    as_json: AsJson = False,
) -> None:
    """Check a model file: format, digests, header, shapes, and that its scores bear its threshold out.

    Loads no weights into memory. A guard's file is compared with its classifier where --classifier names it. Exit
    code 0 where every check passed, 2 where one failed.
    """
    from dracones.detectors import verify as examine

    found = examine(model, **runtime(classifier))
    if as_json:
        emit(found.to_json())
    else:
        for check in found.checks:
            tell(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
        tell(f"{model}: {'whole' if found.passed else 'not to be used'}")
    if not found.passed:
        raise SystemExit(ERROR_EXIT)
