"""How hot the heat maps of normal images are: what colours and outlines of other maps are measured against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

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
        rate: the share that is promised; ``None`` where nothing is.
        confidence: with which it is promised for the calibration images at hand; ``None``: on average.
    """

    usual: float
    peaks: Conformal
    threshold: float
    rate: float | None = None
    confidence: float | None = None

    @property
    def colours(self) -> tuple[float, float]:
        """Heat drawn as cold and as hottest; the threshold is half way."""
        return self.usual, self.usual + 2 * max(self.threshold - self.usual, 0.0)

    def at(self, rate: float, confidence: float | None = None, *, strict: bool = False) -> "HeatRange":
        """The same with the threshold that promises this rate; see `Conformal.threshold`.

        The hottest pixel of an image is one number, and so the promise is that of any conformal threshold: exact for
        every number of calibration images, whatever the law of the maps.

        Args:
            rate: share of normal images that may have any pixel hotter than the threshold.
            confidence: with which it holds for the calibration images at hand; none: on average.
            strict: raise where they are too few, instead of promising nothing.

        Raises:
            TooFewScores: with `strict`; the needed count is named.
        """
        if strict or len(self.peaks) >= Conformal.needed_count(rate, confidence):
            return HeatRange(self.usual, self.peaks, self.peaks.threshold(rate, confidence), rate, confidence)
        return HeatRange(self.usual, self.peaks, float(self.peaks.scores[-1]))

    def hot(self, heat: NDArray[Any]) -> NDArray[np.bool_]:
        """Where a map `[H, W]` is hotter than the threshold; what was never looked at (NaN) is not."""
        # A map is float32, and so is every peak: as wide numbers both are compared exactly.
        return np.asarray(heat, dtype=np.float64) > self.threshold

    def meaning(self) -> str:
        """What is hotter than the threshold, in words."""
        of = f"of {len(self.peaks)} calibration images" if self.rate is None else "of normal images"
        share = "none" if self.rate is None else f"at most {self.rate:.2%}"
        return f"hotter than {self.threshold:.4g}, as {share} {of} are anywhere"

    def state(self) -> tuple[np.ndarray[Any, Any], dict[str, float | None]]:
        """What `from_state` rebuilds this from: the peaks, and numbers."""
        numbers = {"usual": self.usual, "threshold": self.threshold, "rate": self.rate, "confidence": self.confidence}
        return self.peaks.scores.copy(), numbers

    @classmethod
    def from_state(
        cls,
        peaks: Any,
        numbers: Mapping[str, Any],
        *,
        false_alarm_rate: float | None = None,
        confidence: float | None = None,
    ) -> "HeatRange":
        """Rebuild from `state`.

        Args:
            peaks: the hottest pixel of each calibration image.
            numbers: as `state` gave them.
            false_alarm_rate: promised for scores; what holds for pixels too where a file says nothing else of them.
            confidence: of that rate.

        Raises:
            ValueError: a threshold that the peaks do not promise the rate with.
        """
        rate = numbers.get("rate")
        found = cls(numbers["usual"], Conformal().fit(peaks), numbers["threshold"], rate, numbers.get("confidence"))
        if rate is None:
            return found if false_alarm_rate is None else found.at(false_alarm_rate, confidence)
        promised = found.peaks.threshold(rate, found.confidence)
        if found.threshold != promised:
            raise ValueError(
                f"threshold {found.threshold!r} of pixels is not what the peaks of {len(found.peaks)} calibration "
                f"images promise a rate of {rate} with ({promised!r}); calibrate anew"
            )
        return found

    @classmethod
    def of(cls, facts: Sequence[tuple[float, float]]) -> Self | None:
        """From `(usual, peak)` of each calibration image; `None` where there are none."""
        if not facts:
            return None
        usual, peaks = zip(*facts, strict=True)
        return cls(float(np.median(usual)), Conformal().fit(peaks), float(max(peaks)))


def usual_heat(heat: "Tensor") -> list[float]:
    """What nine in ten pixels of each map of `[B, H, W]` are colder than, or as cold.

    >>> import torch
    >>> usual_heat(torch.arange(20.0).view(1, 4, 5))
    [17.0]
    """
    pixels = heat.detach().float().flatten(1).cpu()
    found: list[float] = pixels.kthvalue(max(1, round(_USUAL * pixels.shape[1])), dim=1).values.tolist()
    return found
