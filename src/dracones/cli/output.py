"""What the verbs print, and how they exit: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

ERROR_EXIT = 2
ANOMALY_EXIT = 1
UNJUDGED_EXIT = 3
STOPPED_EXIT = 130


def emit(result: Mapping[str, Any]) -> None:
    """Print one JSON object to standard output: all of what a machine reads."""
    sys.stdout.write(json.dumps(result, allow_nan=False, default=str) + "\n")


def tell(message: str) -> None:
    """Say something to the person watching, on standard error."""
    sys.stderr.write(message + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table to standard output; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False)
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], (int, float)) or row[i] in ("", None) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*[_cell(value) for value in row])
    # A pipe has no width of its own; do not fold a table that a program will read.
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def show_groups(groups: Any) -> None:
    """Print the threshold of each group, as far as there is one, and how many images are behind it."""
    rows = [[name, len(each), groups.thresholds.get(name)] for name, each in groups.calibrations.items()]
    table(f"{len(rows)} groups", ["group", "calibration images", "threshold"], rows)


def fail(error: BaseException, *, as_json: bool) -> NoReturn:
    """Say what went wrong and end with exit code 2."""
    message = str(error) or type(error).__name__
    tell(f"error: {message}")
    if as_json:
        emit({"error": message, "kind": type(error).__name__})
    raise SystemExit(ERROR_EXIT)


def report_skipped(
    skipped: Sequence[Any], shown: int = 10, *, unread: int | None = None, others: int | None = None
) -> None:
    """Sum up the images that could not be read, the first few by name; then other files that lie among them.

    Of very many, ``skipped`` are the first few, and ``unread`` and ``others`` say how many there are.
    """
    for what, items, count in (
        ("unreadable image(s)", unjudged(skipped), unread),
        ("other file(s)", [item for item in skipped if not item.is_image], others),
    ):
        total = len(items) if count is None else count
        if not total:
            continue
        tell(f"skipped {total} {what}:")
        for item in items[:shown]:
            tell(f"  {item.name}: {item.reason}")
        if total > shown:
            tell(f"  ... and {total - shown} more (all are listed with --json)")


def unjudged(skipped: Sequence[Any]) -> list[Any]:
    """Images that should have been judged and were not: not the other files that lie among them."""
    return [item for item in skipped if item.is_image]


def exit_code(*, anomalies: int, unread: int) -> int:
    """0: all read and normal; 1: anomalies; 3: some images could not be judged, so nobody knows what they are."""
    if anomalies:
        return ANOMALY_EXIT
    return UNJUDGED_EXIT if unread else 0


def skipped_records(skipped: Sequence[Any]) -> list[dict[str, str]]:
    """Name and reason of each skipped image, for JSON."""
    return [{"path": str(item.name), "reason": str(item.reason)} for item in skipped]


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(str(value))
