"""What the page of `dracones report` says of an evaluation."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dracones.calibration import Prediction, Promise
from dracones.detectors.evaluation import Evaluation
from dracones.report import (
    Report,
    Tile,
    image_picture,
    overlay,
    p_value_histogram,
    pr_curves,
    roc_curves,
    score_histogram,
    training_curve,
)
from dracones.report.sections import Level

if TYPE_CHECKING:
    from dracones.detectors import Detector
    from dracones.runtime import ExportedDetector

_EXAMPLES = 6


def evaluation_page(detector: "Detector | ExportedDetector", found: Evaluation, normal: Any, anomalous: Any) -> Report:
    """A page on how ``detector`` tells ``anomalous`` from ``normal``; larger score = more anomalous."""
    page = Report(f"{detector.info.name}: normal against anomalous", subtitle=detector.info.citation)
    _verdict(page, detector, found)
    _scores(page, detector, found)
    _metrics(page, found)
    _examples(page, detector, found, normal, anomalous)
    _training(page, detector)
    page.provenance(**{key: value for key, value in detector.provenance.items() if key not in ("training", "met")})
    return page


def _verdict(page: Report, detector: "Detector | ExportedDetector", found: Evaluation) -> None:
    area = found.image["auroc"]
    level: Level = "good" if area["low"] > 0.9 else "warning" if area["low"] > 0.6 else "bad"
    words: dict[Level, str] = {
        "good": "The two sets are told apart.",
        "warning": "The two sets are told apart in part.",
        "bad": "The two sets are not told apart: do not rely on this model for this kind of anomaly.",
    }
    headline = words[level]
    promises = _promises(found)
    broken = [words for words, promise in promises.items() if promise.state == "broken"]
    if broken:
        # Whatever the order of the scores: who acts on the alarms was told another rate.
        level, headline = "bad", " ".join([*broken, headline])
    elif level == "good" and any(promise.state != "kept" for promise in promises.values()):
        level = "warning"
    points = [
        f"An anomalous image scores above a normal one in {area['value']:.1%} of pairs "
        f"(95 % interval {area['low']:.1%} to {area['high']:.1%}).",
        *_alarm_points(detector, found),
    ]
    page.verdict(headline, level=level, points=points)
    page.key_number("AUROC", area)
    if found.pixel is not None:
        page.key_number("pixel AUROC", found.pixel["auroc"])
        page.key_number("AUPRO", found.pixel["aupro"])
        if "auspro" in found.pixel:
            page.key_number("AU-sPRO to .05", found.pixel["auspro"])


def _promises(found: Evaluation) -> dict[str, Promise]:
    """What became of each promise, by its words: one for all images, or one a group."""
    one = {} if found.promise is None else {found.promise.words: found.promise}
    return one | {f"{group}: {promise.words}": promise for group, promise in found.groups.items()}


def _alarm_points(detector: "Detector | ExportedDetector", found: Evaluation) -> list[str]:
    if found.alarms is None:
        return ["No threshold is set: `dracones calibrate` sets one with a promised false-alarm rate."]
    false, caught = found.alarms["normal"], found.alarms["anomalous"]
    return [
        f"At the threshold that promises {detector.false_alarm_rate:.2%} false alarms, {false.count} of {false.total} "
        f"normal images ({false.share.value:.2%}) and {caught.count} of {caught.total} anomalous ones "
        f"({caught.share.value:.1%}) are called anomalous.",
        *_promises(found),
        *([] if found.outlined is None or found.outlined.promise is None else [found.outlined.promise.words]),
        *found.notes,
    ]


def _scores(page: Report, detector: "Detector | ExportedDetector", found: Evaluation) -> None:
    section = page.section("Scores")
    groups = {"normal": found.normal.scores, "anomalous": found.anomalous.scores}
    section.figure(
        score_histogram(groups, threshold=detector.threshold),
        "How the scores are spread. The less the two overlap, the better; the line is the calibrated threshold.",
    )
    if found.normal.p_values is not None and found.anomalous.p_values is not None:
        section.figure(
            p_value_histogram(
                {"normal": found.normal.p_values, "anomalous": found.anomalous.p_values},
                false_alarm_rate=detector.false_alarm_rate,
            ),
            "Conformal p-values. Normal images should lie flat: a slope means they differ from the calibration set.",
        )
    scores = np.concatenate([found.normal.scores, found.anomalous.scores])
    labels = np.repeat([0, 1], [len(found.normal), len(found.anomalous)])
    pair = {"this model": (scores, labels)}
    section.figure(roc_curves(pair), "Anomalies found against false alarms, over all thresholds.")
    section.figure(pr_curves(pair), "How many of the images called anomalous are, over all thresholds.")


def _metrics(page: Report, found: Evaluation) -> None:
    section = page.section("Metrics")
    if found.alarms is not None:
        shares = {**found.alarms, **found.kinds}
        if found.outlined is not None:
            shares |= {"normal, with an outline": found.outlined.normal}
            shares |= {"anomalous, with an outline": found.outlined.anomalous}
        section.table(
            [
                {"images": what, "count": f"{a.count} of {a.total}", "called anomalous": a.share}
                for what, a in shares.items()
            ],
            caption="Images called anomalous at the threshold, in all and by kind, with exact 95 % intervals.",
        )
    rows = [{"level": "image", "metric": name, "value": value} for name, value in found.image.items()]
    if found.pixel is not None:
        rows += [{"level": "pixel", "metric": name, "value": value} for name, value in found.pixel.items()]
    section.table(
        rows, caption="With 95 % intervals. Anomalous is positive, save in aupr_in and fpr_at_tpr95 (normal)."
    )
    section.text(
        f"{found.counts['normal']} normal and {found.counts['anomalous']} anomalous images were scored, "
        f"{found.counts['skipped']} could not be read."
    )


def _examples(
    page: Report, detector: "Detector | ExportedDetector", found: Evaluation, normal: Any, anomalous: Any
) -> None:
    section = page.section("Examples")
    low, high = detector.heat_range.colours if detector.heat_range is not None else _scale(found)
    outline = None if detector.heat_range is None else detector.heat_range.threshold
    if found.anomalous.maps is not None:
        section.text(_legend(detector))
    for words, prediction, images, order in (
        ("Anomalous images that score highest", found.anomalous, anomalous, -1),
        ("Anomalous images that score lowest: the ones missed first", found.anomalous, anomalous, 1),
        ("Normal images that score highest: the first false alarms", found.normal, normal, -1),
    ):
        chosen = np.argsort(order * prediction.scores, kind="stable")[:_EXAMPLES]
        section.tiles([_tile(prediction, int(i), images, low, high, outline) for i in chosen], words)


def _legend(detector: "Detector | ExportedDetector") -> str:
    mask = "Green-blue encloses what the mask marks"
    if detector.heat_range is None:
        return f"{mask}; colours run from the usual to the hottest of these maps. No calibration says what is normal."
    return (
        f"{mask}, white what is {detector.heat_range.meaning()}. Colours begin where nine in "
        "ten pixels of a normal image end, and are the same for all maps."
    )


def _tile(prediction: Prediction, index: int, images: Any, low: float, high: float, outline: float | None) -> Tile:
    native = images.with_preprocess(None)
    place = native.names.index(prediction.paths[index])
    image = native.read(place)
    heat = prediction.maps[index] if prediction.maps is not None else None
    lines = [f"score {prediction.scores[index]:.4g}"]
    if prediction.p_values is not None:
        lines.append(f"p = {prediction.p_values[index]:.3g}")
    if prediction.witnesses is not None:
        lines.append(f"because of {prediction.witnesses[index]}")
    mask = native.mask(place) if native.has_masks else None
    return Tile(
        image_picture(image),
        prediction.paths[index],
        lines,
        flagged=None if prediction.is_anomaly is None else bool(prediction.is_anomaly[index]),
        second=None
        if heat is None
        else overlay(image, heat, mask=mask, threshold=outline, low=low, high=high, legend=True),
    )


def _scale(found: Evaluation) -> tuple[float, float]:
    """One colour scale for all maps: from the usual score to the highest."""
    # What a crop cut off was never looked at and is no number.
    ends = [
        (float(np.nanmedian(one)), float(np.nanmax(one)))
        for maps in (found.normal.maps, found.anomalous.maps)
        for one in maps or ()
    ]
    if not ends:
        return 0.0, 1.0
    middles, tops = zip(*ends, strict=True)
    return float(np.median(middles)), max(tops)


def _training(page: Report, detector: "Detector | ExportedDetector") -> None:
    runs = [run for run in detector.provenance.get("training", []) if run and run.get("history")]
    if not runs:
        return
    section = page.section("Training")
    for run in runs:
        section.figure(
            training_curve(run["history"], best_step=run.get("best_step")),
            f"{run['steps']} steps, {run['seconds']:.0f} s, ended by {run['stopped_by']}; held-out images may stop it.",
        )
