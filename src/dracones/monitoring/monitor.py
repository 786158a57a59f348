"""Whether the images have changed since the calibration, with a promised rate of false alarms."""

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from dracones.calibration import Conformal
from dracones.files.atomic import write_text
from dracones.monitoring.ranking import Ranking
from dracones.monitoring.stream import Stream, ascending, coin, finite

FORMAT = 1
_RISK_SHARE = 0.1
"""Of the promised rate, what is spent on the set of scores being fixed at some time."""


class Monitor:
    """Watches scores as they come: one stream of all images, and one of each source.

    Every score gets a randomised p-value, its place among the calibration scores and all scores since; the capital of
    a bet against those p-values being uniform (a conformal test martingale) stays small as long as new images are like
    the calibration images, and grows exponentially when they are not. An alarm is capital of at least ``1 / rate``
    (with a tenth of the rate kept back for the time when the set stops growing).

    **The bound.** If calibration images and all images since are exchangeable, the probability that a stream *ever*
    raises an alarm is at most ``false_alarm_rate``, however long it runs, whatever the law of the scores. It is for
    each stream (the whole, each source); of k streams at most k times as many. Images that come twice, or in long runs
    of almost the same one, are not exchangeable: a monitor calls that a change, and rightly so. Beyond ``keep`` scores
    a stream also takes images to be independent.

    What a small monitor cannot see: with n calibration scores, changes after fewer than about n images are found late
    if they are slight, as the set they are compared with fills with changed images.

    Args:
        calibration_scores: of normal images, larger = more anomalous; none: images are compared with those before
            them alone. A mapping gives each source calibration scores of its own (as groups of a detector have), and
            then only these sources are known.
        false_alarm_rate: the bound, in (0, 1), for the whole time a stream is watched.
        seed: of the coins that break ties.
        keep: scores since the calibration that each stream keeps, 8 bytes each.
        most_sources: beyond it new sources are refused.

    Attributes:
        tables: digests of the tables that were fed to it; see `take`.

    Raises:
        ValueError: a rate outside (0, 1), scores that are not finite.

    References: Vovk, Nouretdinov, Gammerman, "Testing exchangeability on-line", 2003; `Wager` and `Ranking` for bets
    and p-values.

    Example:
        >>> normal = np.random.default_rng(0).normal(size=(2, 300))
        >>> monitor = Monitor(normal[0])
        >>> for score in normal[1]:
        ...     _ = monitor.update(score, source="camera 1")
        >>> monitor.state()["alarm"]
        False
        >>> changed = next(i for i, score in enumerate(normal[1] + 1, 1) if monitor.update(score))
        >>> changed < 60, monitor.state()["change"]
        (True, 'higher')
    """

    def __init__(
        self,
        calibration_scores: ArrayLike | Mapping[str, ArrayLike] = (),
        *,
        false_alarm_rate: float = 0.01,
        seed: int = 0,
        keep: int = 100_000,
        most_sources: int = 1000,
    ) -> None:
        if not 0 < false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate: expected a number strictly between 0 and 1, got {false_alarm_rate}")
        if keep < 0 or most_sources < 0:
            raise ValueError(f"keep and most_sources: expected at least 0, got {keep} and {most_sources}")
        self.false_alarm_rate = false_alarm_rate
        self.seed = seed
        self.keep = keep
        self.most_sources = most_sources
        self.tables: list[str] = []
        self._own = isinstance(calibration_scores, Mapping)
        given = calibration_scores if isinstance(calibration_scores, Mapping) else {"": calibration_scores}
        self._calibration = {str(name): _checked(name, scores) for name, scores in given.items()}
        self._whole = Stream(self.threshold)
        self._sources: dict[str, Stream] = {}
        self._rankings: dict[str, Ranking] = {}
        if self._own:
            for name in self._calibration:
                self._sources[name] = Stream(self.threshold)

    @property
    def threshold(self) -> float:
        """The log capital that raises an alarm."""
        return -math.log(self.false_alarm_rate * (1 - _RISK_SHARE))

    @property
    def alarm(self) -> bool:
        """Whether the stream of all images or any source has raised an alarm."""
        return any(stream.alarm_at is not None for stream in (self._whole, *self._sources.values()))

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, in the order they were first seen."""
        return tuple(self._sources)

    def stream(self, source: str | None = None) -> Stream:
        """What is known of a source, or of all images."""
        return self._whole if source is None else self._sources[source]

    def update(self, score: float, source: str = "") -> bool:
        """Take one image's score; call it once an image, in the order in which they came.

        Args:
            score: larger = more anomalous.
            source: the image's camera, product, line, ...; none: the image counts for the whole alone.

        Returns:
            Whether this score raised an alarm that was not there before, of the whole or of its source.

        Raises:
            ValueError: a score that is not finite, a source that has no calibration scores where each has its own, or
                one source too many. Nothing is counted then.
        """
        value = finite(score)
        self._meet(source)
        streams = [self._whole] if source == "" and not self._own else [self._whole, self._sources[source]]
        before = [stream.alarm_at for stream in streams]
        if self._own:
            placed = self._place(source, value)
            for stream in streams:
                stream.bet(placed)
        else:
            for name, stream in zip(("", source), streams, strict=False):
                stream.bet(self._place(name, value))
        return [stream.alarm_at for stream in streams] != before

    def is_of(self, calibration_scores: ArrayLike | Mapping[str, ArrayLike]) -> bool:
        """Whether these are the calibration scores that images are compared with."""
        own = isinstance(calibration_scores, Mapping)
        given = calibration_scores if isinstance(calibration_scores, Mapping) else {"": calibration_scores}
        return own == self._own and self._calibration == {name: _checked(name, each) for name, each in given.items()}

    def reset(self, source: str | None = None) -> None:
        """Begin anew from the calibration scores, once the cause of an alarm is gone: a source, or everything.

        Each beginning has the bound anew.

        Raises:
            ValueError: an unknown source.
        """
        if source is None:
            kept = self._sources if self._own else {}
            self._whole = Stream(self.threshold)
            self._sources = {name: Stream(self.threshold) for name in kept}
            self._rankings = {}
            return
        if source not in self._sources:
            raise ValueError(f"source {source!r} is unknown; known: {_listed(self._sources)}")
        self._sources[source] = Stream(self.threshold)
        self._rankings.pop(source, None)

    def state(self) -> dict[str, Any]:
        """What there is to show, as plain values: of all images, and under ``sources`` the same of each source.

        ``seen``, ``log_martingale`` (natural logarithm of the capital), ``highest`` of it, ``alarm``, ``alarm_at`` and
        ``since`` (counted from 1), ``change`` (see `KINDS`), ``threshold`` of ``log_martingale``, and ``curve``: its
        last 500 values.
        """
        sources = {name: stream.state() for name, stream in self._sources.items()}
        return {**self._whole.state(), "false_alarm_rate": self.false_alarm_rate, "sources": sources}

    def save(self, path: str | Path) -> Path:
        """Write everything to a JSON file, whole or not at all; `restore` goes on from there."""
        content = {
            "format": FORMAT,
            "false_alarm_rate": self.false_alarm_rate,
            "seed": self.seed,
            "keep": self.keep,
            "most_sources": self.most_sources,
            "tables": self.tables,
            "own": self._own,
            "calibration": {name: list(scores) for name, scores in self._calibration.items()},
            "whole": self._whole.to_json(),
            "sources": {name: stream.to_json() for name, stream in self._sources.items()},
            "kept": {name: list(ranking.seen) for name, ranking in self._rankings.items()},
        }
        return write_text(path, json.dumps(content, allow_nan=False) + "\n")

    @classmethod
    def restore(cls, path: str | Path) -> Self:
        """A monitor as it was saved.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no monitor's file, or a damaged one.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"it has format {content['format']}, and this version reads {FORMAT}")
            given = content["calibration"]
            monitor = cls(
                given if content["own"] else given[""],
                **{name: content[name] for name in ("false_alarm_rate", "seed", "keep", "most_sources")},
            )
            monitor.tables = [str(digest) for digest in content["tables"]]
            monitor._whole = Stream.from_json(content["whole"])
            monitor._sources = {name: Stream.from_json(each) for name, each in content["sources"].items()}
            for name, scores in content["kept"].items():
                monitor._ranking(name).seen = _checked(name, scores)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"{path} is no file of a monitor, or a damaged one: {error}") from error
        return monitor

    def _meet(self, source: str) -> None:
        if source in self._sources or (source == "" and not self._own):
            return
        if self._own:
            raise ValueError(f"source {source!r} has no calibration scores; known: {_listed(self._sources)}")
        if len(self._sources) >= self.most_sources:
            raise ValueError(f"source {source!r} would be one more than {self.most_sources}, the most that are watched")
        self._sources[source] = Stream(self.threshold)

    def _place(self, name: str, score: float) -> Any:
        ranking = self._ranking(name)
        stream = self._sources[name] if self._own or name else self._whole
        return ranking.place(score, coin(self.seed, name, stream.seen))

    def _ranking(self, name: str) -> Ranking:
        if name not in self._rankings:
            risk = _RISK_SHARE * self.false_alarm_rate / len(self._calibration)
            calibration = self._calibration[name if self._own else ""]
            self._rankings[name] = Ranking(calibration, keep=self.keep, risk=risk)
        return self._rankings[name]


def _checked(name: object, scores: ArrayLike) -> "array[float]":
    """The scores, ascending."""
    if np.size(scores) == 0:
        return array("d")
    try:
        return ascending(Conformal().fit(scores).scores)
    except ValueError as error:
        raise ValueError(f"{error} (of source {name!r})" if name else str(error)) from None


def _listed(names: Sequence[str] | Mapping[str, Any], shown: int = 10) -> str:
    listed = [repr(name) for name in list(names)[:shown]]
    return ", ".join(listed) + (", ..." if len(names) > shown else "") if listed else "none"
