"""One row an image, and what a summary needs of any number of them."""

import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dracones.calibration.prediction import Verdict
from dracones.images.limits import Skipped

COLUMNS: dict[str, type] = {
    "path": str,
    "score": float,
    "p_value": float,
    "is_anomaly": bool,
    "reason": str,
    "witness": str,
    "group": str,
}
"""Of a table of scores; `reason` says why an image has no score, `witness` who of several voices spoke loudest,
`group` whose calibration the p-value and the verdict are by."""

_IS_IMAGE = "is_image"
Row = Mapping[str, Any]


def row_of(answer: Verdict | Skipped) -> dict[str, Any]:
    """A row of `COLUMNS`, and whether it is of an image at all.

    Example:
        >>> row_of(Verdict("a.png", 2.5, 0.125, False))["score"], row_of(Skipped("b.png", "empty"))["reason"]
        (2.5, 'empty')
    """
    if isinstance(answer, Skipped):
        unknown = dict.fromkeys(COLUMNS)
        return {**unknown, "path": answer.name, "reason": answer.reason, _IS_IMAGE: answer.is_image}
    return {
        "path": answer.path,
        "score": answer.score,
        "p_value": answer.p_value,
        "is_anomaly": answer.is_anomaly,
        "reason": None,
        "witness": answer.witness,
        "group": answer.group,
        _IS_IMAGE: True,
    }


class Tally:
    """Counts of rows, the highest scores, and the first of what could not be judged: the same size for any number.

    Attributes:
        scored: images with a score.
        anomalies: those called anomalous.
        unread: images that should have been judged and were not.
        others: files that lie among the images and are none.
        skipped: the first few of both.
    """

    _EXAMPLES = 10

    def __init__(self, highest: int = 20) -> None:
        self.scored = self.anomalies = self.unread = self.others = 0
        self.skipped: list[Skipped] = []
        self._most = highest
        self._heap: list[tuple[float, int, dict[str, Any]]] = []

    def add(self, row: Row) -> None:
        """Count one row."""
        if row["reason"] is not None:
            skipped = Skipped(row["path"], row["reason"], row[_IS_IMAGE])
            seen = self.unread if skipped.is_image else self.others
            if seen < self._EXAMPLES:
                self.skipped.append(skipped)
            self.unread += skipped.is_image
            self.others += not skipped.is_image
            return
        self.scored += 1
        self.anomalies += row["is_anomaly"] is True
        # Of equal scores the first is shown, as a stable sort would.
        entry = (row["score"], -self.scored, {column: row[column] for column in COLUMNS})
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif self._most and entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    @property
    def highest(self) -> list[dict[str, Any]]:
        """The rows with the highest scores, the highest first."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1]))]

    def counts(self) -> dict[str, int]:
        """The four counts by name."""
        return {
            "scored": self.scored,
            "anomalies": self.anomalies,
            "unread": self.unread,
            "others": self.others,
        }

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Join in what another tally counted."""
        self.scored += counts["scored"]
        self.anomalies += counts["anomalies"]
        self.unread += counts["unread"]
        self.others += counts["others"]


def as_json(rows: Callable[[], Iterator[Row]], **rest: Any) -> Iterator[str]:
    """The text of one JSON object piece by piece, so that no list is made: all rows, what was skipped, the rest."""
    yield '{"images": ['
    yield from _joined({column: row[column] for column in COLUMNS} for row in rows())
    yield '], "skipped": ['
    skipped = (row for row in rows() if row["reason"] is not None)
    yield from _joined({column: row[column] for column in ("path", "reason")} for row in skipped)
    yield "], " + json.dumps(rest, allow_nan=False, default=str)[1:] + "\n"


def _joined(records: Iterator[dict[str, Any]]) -> Iterator[str]:
    for number, record in enumerate(records):
        yield (", " if number else "") + json.dumps(record, allow_nan=False)
