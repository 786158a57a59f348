"""The `dracones` command: verbs, and one place where errors become exit codes."""

import sys
from importlib import import_module

import typer

from dracones.cli.output import fail

app = typer.Typer(
    name="dracones",
    help="Learns what images belong, and says with a promised false-alarm rate which do not, and where.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order a newcomer meets them; each module holds one function of its own name.
VERBS = ("demo", "methods", "fit", "calibrate", "score", "evaluate", "compare", "report", "explain")

for _verb in VERBS:
    app.command(_verb)(getattr(import_module(f"dracones.cli.{_verb}"), _verb))


def main() -> None:
    """Run the command line; exit code 0 fine, 1 anomalies found where asked, 2 error."""
    try:
        app()
    except (ValueError, TypeError, OSError, MemoryError) as error:
        fail(error, as_json="--json" in sys.argv)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command again to go on where it stopped\n")
        raise SystemExit(130) from None
