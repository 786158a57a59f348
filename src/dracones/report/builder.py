"""A report as its author writes it: verdict first, then sections of text, tables, figures and tiles."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dracones.files.atomic import write_text
from dracones.report.html import render
from dracones.report.picture import Picture
from dracones.report.plain import plain

Level = Literal["good", "warning", "bad", "neutral"]
_LEVELS = ("good", "warning", "bad", "neutral")


@dataclass(frozen=True)
class Tile:
    """One example image with what is said of it.

    Attributes:
        picture: the image, or its heat map.
        title: the image's name.
        lines: further words, such as its score.
        flagged: whether it was called anomalous; `None` where that was not asked.
        second: shown beside the first, such as the heat map.
    """

    picture: Picture
    title: str
    lines: Sequence[str] = ()
    flagged: bool | None = None
    second: Picture | None = None


@dataclass(frozen=True)
class Block:
    """One thing in a section: `kind` names the template that draws it."""

    kind: str
    content: Mapping[str, Any]


@dataclass
class Section:
    """A part of a report under its own heading; every method adds to its end and gives the section back."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def text(self, *paragraphs: str) -> "Section":
        """Paragraphs of plain text."""
        return self._add("text", paragraphs=paragraphs)

    def note(self, text: str, level: Level = "neutral") -> "Section":
        """A remark set apart from the text."""
        return self._add("note", text=text, level=_known(level))

    def figure(self, picture: Picture, caption: str = "") -> "Section":
        """A figure with its caption; figures that follow each other stand side by side where there is room."""
        return self._add("figure", picture=picture, caption=caption)

    def table(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        columns: Sequence[str] | None = None,
        caption: str = "",
        digits: int = 3,
        best: Mapping[str, Literal["largest", "smallest"]] | None = None,
    ) -> "Section":
        """A table of mappings with the same keys.

        Args:
            rows: a value is text, a number, a truth value, `None`, or an estimate with `value`, `low`, `high`.
            columns: which, and in which order; the first row's if not given.
            caption: what the table shows.
            digits: after the decimal point.
            best: columns whose best value is set in bold.
        """
        columns = list(columns) if columns is not None else list(rows[0]) if rows else []
        missing = [column for column in best or {} if column not in columns]
        if missing:
            raise ValueError(f"best names the columns {missing}, the table has {columns}")
        return self._add(
            "table",
            rows=[dict(row) for row in rows],
            columns=columns,
            caption=caption,
            digits=digits,
            best=dict(best or {}),
        )

    def tiles(self, tiles: Sequence[Tile], caption: str = "") -> "Section":
        """Example images in a grid."""
        return self._add("tiles", tiles=list(tiles), caption=caption)

    def grid(self, rows: Mapping[str, Sequence[Picture]], columns: Sequence[str], caption: str = "") -> "Section":
        """Pictures in rows and columns with a heading each: layers by inputs, say."""
        uneven = [name for name, pictures in rows.items() if len(pictures) != len(columns)]
        if uneven:
            raise ValueError(f"each row needs {len(columns)} pictures, one for each column; {uneven} have not")
        return self._add(
            "grid",
            rows={name: list(pictures) for name, pictures in rows.items()},
            columns=list(columns),
            caption=caption,
        )

    def code(self, text: str) -> "Section":
        """Something to copy, such as a command."""
        return self._add("code", text=text)

    def _add(self, kind: str, **content: Any) -> "Section":
        self.blocks.append(Block(kind, content))
        return self


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
        self.verdict_box = {"text": text, "level": _known(level), "points": list(points)}

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
        return render(self)

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


def _known(level: str) -> str:
    if level not in _LEVELS:
        raise ValueError(f"level must be one of {', '.join(_LEVELS)}; got {level!r}")
    return level


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
