"""What every analysis returns: numbers, a table of them, a figure, and JSON."""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from matplotlib.figure import Figure

from dracones.metrics import Estimate
from dracones.report.plain import plain

Row = dict[str, str | int | float | Estimate | None]
"""One row of a table: column title to value."""

DRAWN: Any = {"json": False}
"""Field metadata: only drawn (arrays of pixels), left out of the JSON."""


@dataclasses.dataclass(frozen=True)
class Finding(ABC):
    """The result of an analysis; subclasses are frozen dataclasses whose fields are the numbers.

    An implementer sets ``title`` and ``look_for`` (what a reader should look for in the figure) and gives `figure` and
    `rows`. Fields with the metadata `DRAWN` stay out of `to_json`.
    """

    title: ClassVar[str]
    look_for: ClassVar[str]

    @abstractmethod
    def figure(self) -> Figure:
        """The figure, made with Matplotlib's object interface: nothing global is touched."""

    @abstractmethod
    def rows(self) -> list[Row]:
        """The main numbers as a table."""

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values; what is not finite becomes None."""
        fields = [field for field in dataclasses.fields(self) if field.metadata.get("json", True)]
        return {field.name: plain(getattr(self, field.name)) for field in fields}


def without_empty(rows: list[Row]) -> list[Row]:
    """The rows without columns that hold nothing in any of them.

    >>> without_empty([{"set": "a", "formula": None}, {"set": "b", "formula": None}])
    [{'set': 'a'}, {'set': 'b'}]
    """
    empty = {key for row in rows for key in row if all(other[key] is None for other in rows)}
    return [{key: value for key, value in row.items() if key not in empty} for row in rows]
