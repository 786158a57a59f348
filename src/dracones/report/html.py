"""From a report to one HTML file that needs no other: no script, no font, no address outside itself."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from dracones.report.figures import estimate
from dracones.report.sections import Block, Section


def render(heading: Mapping[str, Any], sections: Sequence[Section], origin: Mapping[str, Any]) -> str:
    """The page: title, verdict and key numbers, then the sections, then where it all comes from."""
    template = _environment().get_template("report.html.j2")
    return template.render(
        report=heading,
        sections=[(_anchor(i, s.title), s.title, _runs(s.blocks)) for i, s in enumerate(sections)],
        origin={"made by": f"dracones {version('dracones')}", "written": _now(), **_unpadded(origin)},
    )


def _unpadded(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Facts stand alone and not in a column: 23.3 seconds are not 23.300."""
    return {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in origin.items()}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dracones.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "is_number": is_number, "has_numbers": has_numbers, "winners": winners}
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A file's name that a narrow place breaks behind a slash, underscore or hyphen, before it breaks a word.

    >>> breakable("deep/<b>_0.png")
    Markup('deep/<wbr>&lt;b&gt;_<wbr>0.png')
    """
    return Markup(re.sub(r"[/_-]", r"\g<0><wbr>", str(escape(name))))


def cell(value: Any, digits: int = 3) -> str:
    """A value as a table shows it; an interval follows its value in brackets.

    Example:
        >>> cell(0.98765), cell({"value": 0.9, "low": 0.85, "high": 0.95}, 2), cell(None), cell(12000), cell(True)
        ('0.988', '0.90 [0.85, 0.95]', '–', '12,000', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if _is_estimate(value):
        middle, low, high = estimate(value)
        return f"{_number(middle, digits)} [{_number(low, digits)}, {_number(high, digits)}]"
    if is_number(value):
        return _number(value, digits)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {cell(inner, digits)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(inner, digits) for inner in value)
    return str(value)


def is_number(value: Any) -> bool:
    """Whether a cell stands to the right."""
    if isinstance(value, bool | str) or value is None:
        return False
    return _is_estimate(value) or (hasattr(value, "__float__") and hasattr(value, "__round__"))


def has_numbers(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether a column holds any number."""
    return any(is_number(row.get(column)) for row in rows)


def winners(rows: Sequence[Mapping[str, Any]], column: str, best: Mapping[str, str], digits: int) -> set[int]:
    """Which rows hold a column's best value, ties at the digits shown included."""
    if column not in best:
        return set()
    values = {i: estimate(row[column])[0] for i, row in enumerate(rows) if is_number(row.get(column))}
    values = {i: round(value, digits) for i, value in values.items() if math.isfinite(value)}
    if not values:
        return set()
    target = max(values.values()) if best[column] == "largest" else min(values.values())
    return {i for i, value in values.items() if value == target}


def _is_estimate(value: Any) -> bool:
    return (isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)) or (
        hasattr(value, "low") and hasattr(value, "high") and hasattr(value, "value")
    )


def _number(value: Any, digits: int) -> str:
    if isinstance(value, int) or type(value).__name__.startswith(("int", "uint")):
        return f"{int(value):,}"
    value = float(value)
    if math.isnan(value):
        return "–"
    if value and (abs(value) >= 1e6 or abs(value) < 0.5 * 10**-digits):
        return f"{value:.{digits}g}"
    return f"{value:,.{digits}f}"


def _runs(blocks: Sequence[Block]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Neighbouring figures share a row; everything else stands alone."""
    runs: list[tuple[str, list[Mapping[str, Any]]]] = []
    for block in blocks:
        if block.kind == "figure" and runs and runs[-1][0] == "figure":
            runs[-1][1].append(block.content)
        else:
            runs.append((block.kind, [block.content]))
    return runs


def _anchor(place: int, title: str) -> str:
    words = "".join(letter if letter.isalnum() else "-" for letter in title.lower()).strip("-")
    return f"s{place + 1}-{words}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
