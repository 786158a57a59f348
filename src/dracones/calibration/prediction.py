"""What a detector answers: the calibrated verdict on an image, and over a collection."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Verdict:
    """One image's answer.

    Attributes:
        path: file name or ``source[index]``.
        score: larger = more anomalous.
        p_value: share of normal images expected to score at least this high; ``None`` before calibration.
        is_anomaly: score above the calibrated threshold; ``None`` where there is no threshold.
        map: ``[H, W]`` float32 at the image's own resolution, or ``None``.
        witness: who of a method of several voices (`ensemble`) adds most to the score, such as ``"the whole image"``;
            ``None`` for a method of one.
        group: whose calibration the p-value and the verdict are by; ``None`` where there are no groups.
    """

    path: str
    score: float
    p_value: float | None
    is_anomaly: bool | None
    map: NDArray[np.float32] | None = None
    witness: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Prediction:
    """Verdicts over a collection, in its order; unreadable images are in ``errors``, not in the arrays.

    Attributes:
        paths: ``N`` names.
        scores: ``[N]`` float32, larger = more anomalous.
        p_values: ``[N]`` in (0, 1], or ``None`` before calibration.
        is_anomaly: ``[N]`` booleans, or ``None`` where no threshold is calibrated.
        maps: ``N`` arrays ``[H, W]`` at each image's own resolution, or ``None``.
        errors: name and reason of each skipped image.
        threshold: score above which an image is called anomalous.
        false_alarm_rate: the rate promised for ``threshold``.
        witnesses: ``N`` names of who adds most to each score, or ``None`` for a method of one voice.
        groups: ``N`` groups whose calibration each image was compared with, or ``None``.
    """

    paths: tuple[str, ...]
    scores: NDArray[np.float32]
    p_values: NDArray[np.float64] | None
    is_anomaly: NDArray[np.bool_] | None
    maps: Sequence[NDArray[np.float32]] | None = None
    errors: tuple[Any, ...] = field(default=())
    threshold: float | None = None
    false_alarm_rate: float | None = None
    witnesses: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Verdict]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: SupportsIndex) -> Verdict:
        """One image's answer; negative indices count from the end."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of a prediction over {len(self)}")
        return Verdict(
            self.paths[i],
            float(self.scores[i]),
            None if self.p_values is None else float(self.p_values[i]),
            None if self.is_anomaly is None else bool(self.is_anomaly[i]),
            None if self.maps is None else self.maps[i],
            None if self.witnesses is None else self.witnesses[i],
            None if self.groups is None else self.groups[i],
        )

    def to_dataframe(self) -> Any:
        """A pandas `DataFrame`, one row an image, without the maps.

        Columns are those of `Verdict`; what is not known (before calibration) is left out.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas: pip install pandas") from error
        names = [each.name for each in fields(Verdict) if each.name != "map"]
        found = {name: [getattr(verdict, name) for verdict in self] for name in names}
        return pandas.DataFrame({name: values for name, values in found.items() if any(v is not None for v in values)})

    @classmethod
    def gather(
        cls, verdicts: list[Verdict], errors: tuple[Any, ...], threshold: float | None, rate: float | None
    ) -> "Prediction":
        """Join verdicts to arrays."""
        p_values = [v.p_value for v in verdicts if v.p_value is not None]
        flags = [v.is_anomaly for v in verdicts if v.is_anomaly is not None]
        maps = [v.map for v in verdicts if v.map is not None]
        witnesses = [v.witness for v in verdicts if v.witness is not None]
        groups = [v.group for v in verdicts if v.group is not None]
        whole = len(verdicts)
        return cls(
            paths=tuple(v.path for v in verdicts),
            scores=np.array([v.score for v in verdicts], dtype=np.float32),
            p_values=np.array(p_values, dtype=np.float64) if len(p_values) == whole else None,
            is_anomaly=np.array(flags, dtype=np.bool_) if len(flags) == whole else None,
            maps=tuple(maps) if maps and len(maps) == whole else None,
            errors=errors,
            threshold=threshold,
            false_alarm_rate=rate,
            witnesses=tuple(witnesses) if witnesses and len(witnesses) == whole else None,
            groups=tuple(groups) if groups and len(groups) == whole else None,
        )
