"""What a file of lower precision says of itself: how far its answers are from those of the model in float32."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Precision = Literal["float32", "fp16", "int8"]


@dataclass(frozen=True)
class Change:
    """A file of lower precision against its model in float32, on normal images that the fit did not see.

    The promise (a false-alarm rate) was made with scores in float32. It was not made anew for the file: how it fares
    there is what `alarms_before` and `alarms_after` say of these images, and no more.

    Attributes:
        images: that both scored.
        score_median: the middle one of the scores' changes, each relative to the score's size or to the spread of the
            calibration scores, whichever is larger.
        score_largest: the largest of them.
        verdicts: images whose verdict changed; ``None`` without a threshold.
        alarms_before: images above the threshold in float32.
        alarms_after: the same by the file.
        score_noise: the root of the mean squared change of the scores, in their standard deviations.
        map_largest: the largest change of a heat map, relative to that map's largest value; ``None`` without maps.
        rate: false-alarm rate that was promised in float32.
    """

    images: int
    score_median: float
    score_largest: float
    score_noise: float
    verdicts: int | None = None
    alarms_before: int | None = None
    alarms_after: int | None = None
    map_largest: float | None = None
    rate: float | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self | None:
        """From a file's description; ``None`` where it is in float32."""
        told = facts.get("precision", {}).get("change")
        return None if told is None else cls(**told)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file's description."""
        return asdict(self)

    def describe(self) -> list[str]:
        """In words, a line each.

        >>> for line in Change(40, 2e-3, 0.03, 0.1, 1, 2, 3, rate=0.05).describe():
        ...     print(line)
        scores of 40 normal images change by 0.2% in the middle and by 3% at most (0.1 of their spread)
        1 of 40 verdicts changed; above the threshold: 2 of 40 (5.0%) before, 3 of 40 (7.5%) in this file
        the promised false-alarm rate of 5.00% was set in float32; of this file these counts alone are known
        """
        maps = "" if self.map_largest is None else f", heat maps by {_share(self.map_largest)} of their largest value"
        lines = [
            f"scores of {self.images} normal images change by {_share(self.score_median)} in the middle and by "
            f"{_share(self.score_largest)} at most ({self.score_noise:.2g} of their spread){maps}"
        ]
        if self.verdicts is not None and self.alarms_before is not None and self.alarms_after is not None:
            lines += [
                f"{self.verdicts} of {self.images} verdicts changed; above the threshold: "
                f"{self._counted(self.alarms_before)} before, {self._counted(self.alarms_after)} in this file",
                f"the promised false-alarm rate of {self.rate or 0:.2%} was set in float32; of this file these counts "
                "alone are known",
            ]
        return lines

    def _counted(self, count: int) -> str:
        return f"{count} of {self.images} ({count / self.images:.1%})"


def _share(value: float) -> str:
    return f"{100 * value:.2g}%"
