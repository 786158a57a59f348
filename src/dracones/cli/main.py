"""The `dracones` command: verbs, and one place where errors become exit codes."""

import sys
import traceback
import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from dracones.cli.output import STOPPED_EXIT, fail, tell

app = typer.Typer(
    name="dracones",
    help="Learns what images belong, and says with a promised false-alarm rate which do not, and where.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order a newcomer meets them; each module holds one function of its own name.
VERBS = (
    "demo",
    "methods",
    "fit",
    "calibrate",
    "update",
    "score",
    "monitor",
    "audit",
    "recalibrate",
    "evaluate",
    "compare",
    "report",
    "sensitivity",
    "explain",
    "verify",
    "export",
    "serve",
)


def _stoppable(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, saying what Ctrl-C left behind; typer would end it without a word."""

    @wraps(verb)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            verb(*arguments, **options)
        except KeyboardInterrupt as stop:
            tell(str(stop) or "stopped")
            raise SystemExit(STOPPED_EXIT) from None

    return run


def _version(asked: bool) -> None:
    if asked:
        import dracones

        typer.echo(f"dracones {dracones.__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Learns what images belong, and says with a promised false-alarm rate which do not, and where."""
    del version


for _verb in VERBS:
    app.command(_verb)(_stoppable(getattr(import_module(f"dracones.cli.{_verb}"), _verb)))


def main() -> None:
    """Run the command line; exit code 0 fine, 1 anomalies found where asked, 2 error, 130 stopped by Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a letter shows its number; the work it would have told of is not lost.
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            # What went on differently than asked is for the user, in words; deprecations keep their line of code.
            if issubclass(category, (UserWarning, RuntimeWarning)):
                tell("warning: " + " ".join(str(message).split()))
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        _run()


def _run() -> None:
    try:
        app()
    except (ValueError, TypeError, OSError, MemoryError, ImportError) as error:
        fail(error, as_json="--json" in sys.argv)
    except Exception as error:  # 1 would say that anomalies were found
        traceback.print_exc()
        fail(error, as_json="--json" in sys.argv)
