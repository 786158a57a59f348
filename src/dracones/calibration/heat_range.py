"""How hot the heat maps of normal images are: what colours and outlines of other maps are measured against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dracones.calibration.conformal import Conformal

if TYPE_CHECKING:
    from torch import Tensor

_USUAL = 0.9
"""Share of an image's pixels that count as usual."""


@dataclass(frozen=True)
class HeatRange:
    """The heat of normal images: usual below `usual`, and beyond `threshold` next to nowhere.

    Without it each batch of maps would be drawn against itself, and the hottest pixel of a good part would look like a
    defect.

    Attributes:
        usual: nine in ten pixels of a normal image are colder (median over the calibration images).
        peaks: the hottest pixel of each calibration image.
        threshold: at most the promised share of normal images has any pixel hotter than this; where the calibration
            images are too few for the promise, the hottest pixel of all of them.
    """

    usual: float
    peaks: Conformal
    threshold: float

    @property
    def colours(self) -> tuple[float, float]:
        """Heat drawn as cold and as hottest; the threshold is half way."""
        return self.usual, self.usual + 2 * max(self.threshold - self.usual, 0.0)

    def at(self, false_alarm_rate: float, confidence: float | None = None) -> "HeatRange":
        """The same with the threshold that promises this rate; see `Conformal.threshold`."""
        enough = len(self.peaks) >= Conformal.needed_count(false_alarm_rate, confidence)
        threshold = self.peaks.threshold(false_alarm_rate, confidence) if enough else float(self.peaks.scores[-1])
        return HeatRange(self.usual, self.peaks, threshold)

    def meaning(self, false_alarm_rate: float | None) -> str:
        """What is hotter than the threshold, in words, given the rate that was promised."""
        of = f"of {len(self.peaks)} calibration images" if false_alarm_rate is None else "of normal images"
        share = "none" if false_alarm_rate is None else f"at most {false_alarm_rate:.2%}"
        return f"hotter than {self.threshold:.4g}, as {share} {of} are anywhere"

    def state(self) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
        """What `from_state` rebuilds this from: the peaks, and numbers."""
        return self.peaks.scores.copy(), {"usual": self.usual, "threshold": self.threshold}

    @classmethod
    def from_state(cls, peaks: Any, numbers: Mapping[str, float]) -> Self:
        """Rebuild from `state`."""
        return cls(numbers["usual"], Conformal().fit(peaks), numbers["threshold"])

    @classmethod
    def of(cls, facts: Sequence[tuple[float, float]]) -> Self | None:
        """From `(usual, peak)` of each calibration image; `None` where there are none."""
        if not facts:
            return None
        usual, peaks = zip(*facts, strict=True)
        return cls(float(np.median(usual)), Conformal().fit(peaks), float(max(peaks)))


def heat_facts(heat: "Tensor") -> list[tuple[float, float]]:
    """`(usual, peak)` of each map of `[B, H, W]`.

    >>> import torch
    >>> heat_facts(torch.arange(20.0).view(1, 4, 5))
    [(17.0, 19.0)]
    """
    pixels = heat.detach().float().flatten(1).cpu()
    usual = pixels.kthvalue(max(1, round(_USUAL * pixels.shape[1])), dim=1).values
    return list(zip(usual.tolist(), pixels.amax(dim=1).tolist(), strict=True))
