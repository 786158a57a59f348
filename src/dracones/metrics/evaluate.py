"""Every metric at once, with its interval, as plain dictionaries for JSON."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dracones.metrics.intervals import (
    REPLICATES,
    CurveMetric,
    auroc_interval,
    average_precision_of,
    bootstrap,
    detection_error_of,
    f1_max_of,
    fpr_at_tpr_interval,
)
from dracones.metrics.pixels import PixelRanking
from dracones.metrics.ranking import Ranking


def evaluate_scores(
    scores: ArrayLike,
    labels: ArrayLike,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, float]]:
    """All image-level metrics, each with `value`, `low` and `high`, from one sort.

    `auroc` (DeLong interval), `aupr_in` and `aupr_out` (average precision, normal and anomalous as positive),
    `fpr_at_tpr95` (normal as positive, as in the literature), `detection_error`, `f1_max` (anomalous as positive;
    its entry also holds the `threshold`); bootstrap intervals, stratified by class.

    Example:
        >>> result = evaluate_scores([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> list(result), result["auroc"]["value"]
        (['auroc', 'aupr_in', 'aupr_out', 'fpr_at_tpr95', 'detection_error', 'f1_max'], 0.75)
    """
    ranking = Ranking(scores, labels)
    best = ranking.f1_max()
    draw = partial(bootstrap, ranking, confidence=confidence, replicates=replicates)
    seeds = [int(word) for word in np.random.SeedSequence(seed).generate_state(3)]
    inside = draw("in", {"aupr_in": CurveMetric(ranking.aupr("in"), average_precision_of)}, seed=seeds[0])
    outside = draw(
        "out",
        {
            "aupr_out": CurveMetric(ranking.aupr("out"), average_precision_of),
            "detection_error": CurveMetric(ranking.detection_error(), detection_error_of, highest=0.5),
            "f1_max": CurveMetric(best.value, f1_max_of),
        },
        seed=seeds[1],
    )
    estimates = {
        "auroc": auroc_interval(ranking, confidence),
        **inside,
        "aupr_out": outside["aupr_out"],
        "fpr_at_tpr95": fpr_at_tpr_interval(
            ranking, 0.95, positive="in", confidence=confidence, seed=seeds[2], replicates=replicates
        ),
        "detection_error": outside["detection_error"],
        "f1_max": outside["f1_max"],
    }
    result = {name: estimate.to_dict() for name, estimate in estimates.items()}
    result["f1_max"]["threshold"] = best.threshold
    return result


def evaluate_maps(
    maps: Any,
    masks: Any,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    insides: Any = None,
    areas: Any = None,
    max_fpr: float = 0.3,
    replicates: int = REPLICATES,
) -> dict[str, dict[str, float]]:
    """All pixel metrics, each with `value`, `low` and `high`, from one sort.

    The names of `evaluate_scores`, over pixels, and `aupro` up to the false positive rate `max_fpr`; `auspro` up to .05
    where the saturation of every defect is known. Intervals are bootstrapped over images. `maps`, `masks`, `insides`
    and `areas`: see `PixelRanking.add`; pass generators to keep memory low.

    Example:
        >>> maps = np.linspace(0, 1, 48).reshape(3, 4, 4)
        >>> evaluate_maps(maps, maps > 0.6)["aupro"]["value"]
        1.0
    """
    ranking = PixelRanking()
    ranking.add(maps, masks, insides, areas)
    estimates = ranking.intervals(max_fpr=max_fpr, confidence=confidence, seed=seed, replicates=replicates)
    result = {name: estimate.to_dict() for name, estimate in estimates.items()}
    result["f1_max"]["threshold"] = ranking.f1_max().threshold
    return result
