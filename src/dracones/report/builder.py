"""A report as its author writes it: verdict first, then sections of text, tables, figures and tiles."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dracones.files.atomic import write_text
from dracones.report.html import render
from dracones.report.picture import Picture
from dracones.report.plain import plain
from dracones.report.sections import Block, Level, Section, Tile, known_level


class Report:
    """A report that becomes one HTML file without any other, and a JSON twin with the numbers.

    Example:
        >>> report = Report("Bottle line 3")
        >>> report.verdict("The threshold holds: 1 of 100 good bottles was called bad.", level="good")
        >>> _ = report.section("Scores").text("As expected.").table([{"rule": "auto", "AUROC": 0.991}])
        >>> "<h1>Bottle line 3</h1>" in report.to_html(), report.to_json()["verdict"]["level"]
        (True, 'good')
    """

    def __init__(self, title: str, *, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.sections: list[Section] = []
        self.verdict_box: dict[str, Any] | None = None
        self.key_numbers: dict[str, Any] = {}
        self.origin: dict[str, Any] = {}

    def verdict(self, text: str, *, level: Level = "neutral", points: Sequence[str] = ()) -> None:
        """What to take away, in words, at the top of the page; `points` are what it rests on."""
        self.verdict_box = {"text": text, "level": known_level(level), "points": list(points)}

    def key_number(self, name: str, value: Any) -> None:
        """A number that stands out below the verdict: a number, text or an estimate."""
        self.key_numbers[name] = value

    def section(self, title: str) -> Section:
        """A new section at the end."""
        section = Section(title)
        self.sections.append(section)
        return section

    def provenance(self, **origin: Any) -> None:
        """Where the numbers come from, for the foot of the page: model, data, versions, seed."""
        self.origin.update(origin)

    def to_html(self) -> str:
        """The page, complete in itself."""
        heading = {
            "title": self.title,
            "subtitle": self.subtitle,
            "verdict_box": self.verdict_box,
            "key_numbers": self.key_numbers,
        }
        return render(heading, self.sections, self.origin)

    def to_json(self) -> dict[str, Any]:
        """The report without its pictures: each figure is the numbers it was drawn from."""
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "verdict": self.verdict_box,
            "key_numbers": plain(self.key_numbers),
            "sections": [
                {"title": section.title, "blocks": [_block_json(block) for block in section.blocks]}
                for section in self.sections
            ],
            "provenance": plain(self.origin),
        }

    def write(self, path: str | Path) -> Path:
        """Write the page atomically; a path without suffix gets `.html`."""
        path = Path(path)
        return write_text(path if path.suffix else path.with_suffix(".html"), self.to_html())

    def save_json(self, path: str | Path) -> Path:
        """Write the JSON twin atomically."""
        return write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _block_json(block: Block) -> dict[str, Any]:
    return {"kind": block.kind} | {key: _without_bytes(value) for key, value in block.content.items()}


def _without_bytes(value: Any) -> Any:
    if isinstance(value, Picture):
        return {"alt": value.alt, "numbers": plain(value.numbers)}
    if isinstance(value, Tile):
        return {"title": value.title, "lines": list(value.lines), "flagged": value.flagged}
    if isinstance(value, Mapping):
        return {str(key): _without_bytes(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_bytes(inner) for inner in value] if not hasattr(value, "_asdict") else plain(value)
    return plain(value)
