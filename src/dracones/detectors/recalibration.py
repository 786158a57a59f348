"""Confirmed good images join a new calibration, if they were not chosen by the verdict."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dracones.calibration import Conformal, Groups, HeatRange, TooFewScores
from dracones.calibration.groups import check_counts
from dracones.calibration.met import Digests, Met
from dracones.calibration.promise import SIGNIFICANCE
from dracones.calibration.truncation import Tail, tail_of
from dracones.detectors import scoring
from dracones.detectors.auditing import audited
from dracones.detectors.detector import Detector
from dracones.detectors.familiar import digests, first_of_each, refuse_learnt
from dracones.detectors.grouping import grouping_of
from dracones.detectors.record import Record
from dracones.images import ImageCollection, open_images
from dracones.images.keys import How
from dracones.training import Progress


@dataclass(frozen=True)
class Recalibration:
    """A detector with a new calibration; the one it came from is as it was.

    Attributes:
        detector: the same weights, another calibration.
        joined: how many confirmed images' scores are in it.
        kept: how many of the old ones.
        left_out: how many confirmed images are not, by reason.
        tails: how many of the confirmed images lie above the old threshold, of each group (of ``""`` where there are
            none); empty where there was no threshold.
    """

    detector: Detector
    joined: int
    kept: int
    left_out: dict[str, int]
    tails: Mapping[str, Tail]


def recalibrate(
    detector: Detector,
    confirmed: Any,
    *,
    audit_share: float,
    with_old: bool = True,
    false_alarm_rate: float | None = None,
    confidence: float | None = None,
    groups: How | None = None,
    progress: Progress | None = None,
) -> Recalibration:
    """A detector whose threshold also rests on images that were confirmed good since.

    **The trap.** Who confirms what passed, and only that, calibrates on images below the old threshold: the new one is
    lower, and false alarms come twice as often as promised, then three times. What was confirmed after an alarm (a
    false alarm) does not mend it, unless passed images were looked at just as often. So only those images calibrate
    that a human looked at *whatever the verdict*: the audit sample, which a coin chose (`audit`), with all of its false
    alarms. The coin is tossed by the pixels, and so it is known here which images are of the sample; others are left
    out, and a sample whose highest scores are missing is refused.

    Good images of the audit sample are exchangeable with all good images, and so is their union with the old
    calibration images as long as nothing has changed: the promise is that of any conformal threshold. Whether something
    has changed is tested (Kolmogorov and Smirnov, two-sided, 1 %). Where each group has its own calibration all of this
    holds, and is tested, in each.

    Args:
        detector: calibrated; it is not changed.
        confirmed: images that a human called good, all of the audit sample among them.
        audit_share: share of all images that were looked at whatever their verdict; 1 where all were.
        with_old: keep the old calibration's scores beside the new ones.
        false_alarm_rate: to promise; as before if not given.
        confidence: as for `Detector.calibrate`; as before if no rate is given.
        groups: each image's group, where the calibration has groups; as at the calibration if not given.
        progress: is told how far it is.

    Raises:
        ValueError: not calibrated, images that were learnt from or are of groups that were not calibrated, a sample
            that was cut off at the old threshold, or old images that the new ones are unlike.
        TooFewScores: too few images for the rate; the needed count is named.
    """
    record = _calibrated(detector)
    rate = false_alarm_rate if false_alarm_rate is not None else record.false_alarm_rate
    if rate is None:
        rate = detector.config.false_alarm_rate
    elif false_alarm_rate is None and confidence is None:
        confidence = record.confidence
    images = open_images(confirmed)
    keys = _keys(record, images, groups)
    chosen, found, left_out = _chosen(record, images, audit_share, with_old, progress)
    own = None if keys is None else [keys[i] for i in chosen]
    kept = len(record.calibration) if with_old else 0
    _check_enough(record, images, own, len(chosen), kept, left_out, rate, confidence)
    scored = scoring.scores_of_normals(
        detector.scorer(), detector.adopt(images.subset(chosen)), groups=own, progress=progress
    )
    new = _by_group(scored, own)
    tails = {name: _checked_tail(record, name, each, images.name_of_source) for name, each in new.items()}
    if with_old:
        _refuse_unlike(_old(record), new)
    made = _joined(record, new, scored.heat_range, found, with_old)
    made = _noting(made, record, images, len(scored.scores), left_out, audit_share, with_old)
    pixels = record.heat_range.rate if record.heat_range is not None else None
    view = Detector(detector.method)
    view.config = detector.config
    view.know(made.promising(rate, confidence, pixels if pixels != record.false_alarm_rate else None))
    known = {name: tail for name, tail in tails.items() if tail is not None}
    return Recalibration(view, len(scored.scores), kept, left_out, known)


def _calibrated(detector: Detector) -> Record:
    record = detector.fitted()
    if not len(record.calibration):
        raise ValueError("this detector has no calibration that images could join; calibrate it first")
    return record


def _keys(record: Record, images: ImageCollection, groups: How | None) -> list[str] | None:
    """The group of each image, as the calibration knows them; ``None`` where it has no groups."""
    found = grouping_of(record.groups, images, groups, range(len(images)))
    return None if found is None else [found.names[place] for place in found.places]


def _check_enough(
    record: Record,
    images: ImageCollection,
    own: list[str] | None,
    count: int,
    kept: int,
    left_out: dict[str, int],
    rate: float,
    confidence: float | None,
) -> None:
    """Refuse too few images before any is scored."""
    said = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    note = f" ({kept} old, {count} confirmed{f'; left out: {said}' if said else ''})"
    if not count:
        raise ValueError(f"none of {len(images)} images of {images.name_of_source} can join the calibration{note}")
    if own is not None:
        joining = Counter(own)
        check_counts(
            {name: joining[name] + len(old) * bool(kept) for name, old in _old(record).items()}, rate, confidence
        )
        return
    needed = Conformal.needed_count(rate, confidence)
    if count + kept < needed:
        raise TooFewScores(count + kept, needed, rate, confidence, note)


def _old(record: Record) -> Mapping[str, Conformal]:
    """The old calibrations by group; of ``""`` where there are none."""
    return {"": record.calibration} if record.groups is None else record.groups.calibrations


def _by_group(scored: scoring.NormalScores, own: list[str] | None) -> dict[str, Conformal]:
    """The new scores, as `_old` has the old ones."""
    if own is None:
        return {"": Conformal().fit(scored.scores)}
    return dict(Groups.of([own[i] for i in scored.places], scored.scores).calibrations)


def _chosen(
    record: Record, images: ImageCollection, share: float, with_old: bool, progress: Progress | None
) -> tuple[np.ndarray, Digests, dict[str, int]]:
    """Places and digests of the images that may join, and how many may not, by reason."""
    audited(np.empty(0, dtype=np.uint64), share)
    found = digests(images, progress)
    learnt = refuse_learnt(record.learnt, found, images.name_of_source, "set a threshold")
    inside = audited(found, share)
    first = np.zeros(len(found), dtype=np.bool_)
    first[first_of_each(found)] = True
    before = record.calibrated.holds(found) if with_old else np.zeros(len(found), dtype=np.bool_)
    unread = found == 0
    steps: dict[str, Callable[[], np.ndarray]] = {
        "not read": lambda: unread,
        "learnt from": lambda: learnt,
        "not of the audit sample": lambda: ~inside,
        "copies": lambda: ~first,
        "in the old calibration": lambda: before,
    }
    left, counts = np.ones(len(found), dtype=np.bool_), {}
    for reason, out in steps.items():
        going = left & out()
        counts[reason] = int(going.sum())
        left &= ~going
    places = np.flatnonzero(left)
    return places, found[places], counts


def _checked_tail(record: Record, group: str, new: Conformal, source: str) -> Tail | None:
    if record.false_alarm_rate is None:
        return None
    tail = tail_of(_old(record)[group], record.false_alarm_rate, record.confidence, new.scores)
    of = f"{source}, group {group}," if group else source
    if tail.state == "cut":
        raise ValueError(
            f"of the confirmed images of {of} {tail.words}: the false alarms among the audited images are missing, "
            "and a threshold from what passed would be too low. Add every audited image that is good, those that "
            "raised an alarm above all; if scores have fallen because the line has changed, `calibrate` takes images "
            "as they are"
        )
    if tail.state == "unknown":
        warnings.warn(
            f"of the confirmed images{f' of group {group}' if group else ''} {tail.words}: too few to tell whether "
            "false alarms are missing. Are the audited images that raised an alarm and are good among them?",
            RuntimeWarning,
            stacklevel=3,
        )
    return tail


def _refuse_unlike(old: Mapping[str, Conformal], new: Mapping[str, Conformal]) -> None:
    from scipy.stats import ks_2samp

    for group, scores in new.items():
        before = old[group].scores
        chance = float(ks_2samp(before, scores.scores, method="asymp").pvalue)
        if chance < SIGNIFICANCE / len(new):
            way = "higher" if np.median(scores.scores) > np.median(before) else "lower"
            of = f" of group {group}" if group else ""
            raise ValueError(
                f"the confirmed images{of} are unlike the old calibration images (scores are {way}; so different by "
                f"chance: {chance:.2g}), and one promise from both would hold for neither: leave the old ones out "
                "(with_old=False, --without-old), after a look at what has changed"
            )


def _joined(
    record: Record, new: Mapping[str, Conformal], heat: HeatRange | None, found: Digests, with_old: bool
) -> Record:
    """The record with the scores, peaks and digests of both, or of the new images alone."""
    merged = dict(new)
    if with_old:
        parts = {name: [old, new[name]] if name in new else [old] for name, old in _old(record).items()}
        merged = {name: Conformal().fit(np.concatenate([part.scores for part in both])) for name, both in parts.items()}
    groups = None if record.groups is None else Groups(merged, record.groups.how)
    scores = merged[""] if groups is None else groups.pooled()
    if not with_old:
        return record.seen(scores, heat, groups).met_in_calibration(found)
    old = record.heat_range
    if heat is not None and old is not None:
        peaks = Conformal().fit(np.concatenate([old.peaks.scores, heat.peaks.scores]))
        usual = float(np.average([old.usual, heat.usual], weights=[len(old.peaks), len(heat.peaks)]))
        heat = HeatRange(usual, peaks, float(peaks.scores[-1]))
    return record.seen(scores, heat, groups).met_in_calibration(np.union1d(record.calibrated.kept, Met.of(found).kept))


def _noting(
    made: Record,
    old: Record,
    images: ImageCollection,
    joined: int,
    left_out: dict[str, int],
    share: float,
    with_old: bool,
) -> Record:
    """The record with a line in its provenance: what joined what."""
    step = {
        "from": old.digest,
        "old_threshold": old.threshold,
        "old_images": len(old.calibration),
        "with_old": with_old,
        "confirmed": len(images),
        "joined": joined,
        "left_out": {reason: count for reason, count in left_out.items() if count},
        "audit_share": share,
        "source": images.name_of_source,
        "fingerprint": images.fingerprint(),
    }
    steps = [*made.provenance.get("recalibrated", ()), step]
    return replace(made, provenance={**made.provenance, "recalibrated": steps})
