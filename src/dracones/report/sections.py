"""What a page is made of: sections of text, tables, figures and tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dracones.report.picture import Picture

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
        return self._add("note", text=text, level=known_level(level))

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


def known_level(level: str) -> str:
    """The level itself, if it is one."""
    if level not in _LEVELS:
        raise ValueError(f"level must be one of {', '.join(_LEVELS)}; got {level!r}")
    return level
