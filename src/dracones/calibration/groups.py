"""Calibration of each group by itself: a promise for every product, camera or class, and not on average over them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dracones.calibration.conformal import Conformal, TooFewScores

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """One `Conformal` a group (Mondrian, or group-conditional, calibration).

    A single threshold keeps its promise on average over all images: where one camera's scores are higher than the
    others', it raises more false alarms than were promised, and the others fewer. Calibrated by itself, each group
    keeps the promise: an image of group g is compared with calibration images of g alone, and needs no more than that
    it is exchangeable with those. Each group needs as many calibration images as the rate asks for.

    A group that was not calibrated has no promise, and is refused by name: no threshold of other groups is safe for it.

    Attributes:
        calibrations: by group, in the order of their names.
        how: what tells an image's group by its name: ``"folder"`` or a regular expression; ``None``: given with the
            images, by a table or a list.
        thresholds: by group; empty before `at`.

    Reference: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005, section 4.5 (Mondrian
    confidence machines).

    Example:
        >>> groups = Groups.of(["a"] * 99 + ["b"] * 99, [*range(99), *range(100, 199)]).at(0.05)
        >>> groups.thresholds
        {'a': 94.0, 'b': 194.0}
        >>> groups.is_anomalous([150, 150], ["a", "b"]).tolist()
        [True, False]
    """

    calibrations: Mapping[str, Conformal]
    how: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: Sequence[str], scores: ArrayLike, how: str | None = None) -> Self:
        """From scores of normal images and the group of each."""
        values = np.asarray(scores)
        names = np.asarray(keys, dtype=object)
        if values.shape != names.shape:
            raise ValueError(f"groups: expected one for each of {values.size} scores, got {names.size}")
        return cls({name: Conformal().fit(values[names == name]) for name in sorted(set(keys))}, how)

    def __len__(self) -> int:
        return len(self.calibrations)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the groups, in order."""
        return tuple(self.calibrations)

    def at(self, false_alarm_rate: float, confidence: float | None = None) -> Self:
        """The same with each group's threshold that promises this rate.

        Raises:
            TooFewScores: groups that are too small, by name, with the needed count.
        """
        check_counts({name: len(each) for name, each in self.calibrations.items()}, false_alarm_rate, confidence)
        found = {name: each.threshold(false_alarm_rate, confidence) for name, each in self.calibrations.items()}
        return replace(self, thresholds=found)

    def places(self, keys: Sequence[str | None], images: Sequence[str]) -> Places:
        """The place of each image's group among `names`.

        Raises:
            ValueError: images without a group or of one that was not calibrated, by name.
        """
        place = {name: i for i, name in enumerate(self.names)}
        unknown = [(image, key) for image, key in zip(images, keys, strict=True) if key is None or key not in place]
        if unknown:
            image, key = unknown[0]
            of = "no group" if key is None else f"group {key!r}"
            near = difflib.get_close_matches(key, self.names, 1) if key is not None else []
            raise ValueError(
                f"{len(unknown)} of {len(images)} images are of groups that were not calibrated and have no promise: "
                f"{image} is of {of}{f', did you mean {near[0]!r}?' if near else ''}; calibrated: "
                f"{_some(self.names)}; name the groups as at the calibration, or calibrate with images of these too"
            )
        return np.array([place[key] for key in keys if key is not None], dtype=np.int64)

    def p_values(self, scores: ArrayLike, keys: Sequence[str]) -> NDArray[np.float64]:
        """The p-value of each score ``[N]`` within its group; see `Conformal.p_values`."""
        values = np.asarray(scores)
        places, found = self.places(keys, [f"score {i}" for i in range(len(keys))]), np.empty(values.shape)
        for place, name in enumerate(self.names):
            found[places == place] = self.calibrations[name].p_values(values[places == place])
        return found

    def is_anomalous(self, scores: ArrayLike, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each score ``[N]`` is above its group's threshold."""
        limits = np.array([self.thresholds[name] for name in self.names])
        above: NDArray[np.bool_] = (
            np.asarray(scores) > limits[self.places(keys, [f"score {i}" for i in range(len(keys))])]
        )
        return above

    def pooled(self) -> Conformal:
        """All groups' scores as one calibration."""
        return Conformal().fit(np.concatenate([each.scores for each in self.calibrations.values()]))

    def owners(self) -> Places:
        """The place among `names` of the group that each score of `pooled` is of."""
        scores = np.concatenate([each.scores for each in self.calibrations.values()])
        owners = np.repeat(np.arange(len(self.names)), [len(each) for each in self.calibrations.values()])
        return owners[np.argsort(scores, kind="stable")].astype(np.int64)


def check_counts(counts: Mapping[str, int], false_alarm_rate: float, confidence: float | None) -> None:
    """Refuse groups that are too small for a promise.

    Raises:
        TooFewScores: names them.
    """
    needed = Conformal.needed_count(false_alarm_rate, confidence)
    small = {name: count for name, count in counts.items() if count < needed}
    if small:
        listed = _some([f"{name!r} has {count}" for name, count in small.items()])
        note = f" in the smallest of the groups, each of which is promised the rate ({listed})"
        raise TooFewScores(min(small.values()), needed, false_alarm_rate, confidence, note)


def _some(names: Sequence[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
