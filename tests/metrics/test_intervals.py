"""Intervals: DeLong against its definition, the bootstrap against one that sorts every resample, coverage by draw."""

import numpy as np
import pytest
from scipy.special import expit, logit

from dracones.metrics import Ranking, auroc_interval, evaluate_scores, fpr_at_tpr_interval, intervals
from dracones.metrics.intervals import (
    CurveMetric,
    average_precision_of,
    bootstrap,
    cells,
    detection_error_of,
    f1_max_of,
    mirrored,
)

NAMES = ["auroc", "aupr_in", "aupr_out", "fpr_at_tpr95", "detection_error", "f1_max"]


def gaussian(rng, normal, anomalous, shift, levels=None):
    scores = np.concatenate([rng.standard_normal(normal), rng.standard_normal(anomalous) + shift])
    if levels:
        scores = np.round(scores * levels)
    return scores.astype(np.float32), np.repeat([0, 1], [normal, anomalous])


@pytest.mark.parametrize("levels", [None, 2])
def test_delong_is_its_definition(levels):
    scores, labels = gaussian(np.random.default_rng(0), 37, 23, 1, levels)
    normal, anomalous = scores[labels == 0], scores[labels == 1]
    kernel = (anomalous[:, None] > normal) + 0.5 * (anomalous[:, None] == normal)
    value = kernel.mean()
    variance = kernel.mean(axis=1).var(ddof=1) / 23 + kernel.mean(axis=0).var(ddof=1) / 37
    half = 1.959963984540054 * np.sqrt(variance) / (value * (1 - value))
    expected = value, *expit([logit(value) - half, logit(value) + half])
    assert tuple(auroc_interval(Ranking(scores, labels))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("normal", "anomalous"), [(10, 10), (1, 1), (1, 30), (500, 3)])
def test_perfect_separation_is_not_certainty(normal, anomalous):
    scores = np.arange(normal + anomalous)
    result = evaluate_scores(scores, scores >= normal)
    for name in NAMES:
        perfect = 0.0 if name in ("fpr_at_tpr95", "detection_error") else 1.0
        assert result[name]["value"] == perfect
        assert result[name]["high"] - result[name]["low"] > 0.4 / (normal + anomalous), name
        assert 0 <= result[name]["low"] <= result[name]["high"] <= 1
    assert auroc_interval(Ranking(-scores, scores >= normal)).low == 0
    assert auroc_interval(Ranking(-scores, scores >= normal)).high == pytest.approx(1 - result["auroc"]["low"])


@pytest.mark.parametrize("positive", ["in", "out"])
@pytest.mark.parametrize("levels", [None, 4])
def test_cells_give_the_exact_values(positive, levels):
    scores, labels = gaussian(np.random.default_rng(1), 150, 60, 1, levels)
    ranking = Ranking(scores, labels)
    cut = cells(ranking, positive)
    assert cut.exact
    found, alarms = np.cumsum(cut.positives)[None], np.cumsum(cut.negatives)[None]
    assert found[0, -1] == ranking.size(positive)
    assert alarms[0, -1] == 210 - ranking.size(positive)
    assert average_precision_of(found, alarms)[0] == pytest.approx(ranking.aupr(positive), abs=1e-12)
    assert detection_error_of(found, alarms)[0] == pytest.approx(ranking.detection_error(), abs=1e-12)
    if positive == "out":
        assert f1_max_of(found, alarms)[0] == pytest.approx(ranking.f1_max().value, abs=1e-12)


def drawn_by_resorting(scores, labels, replicates, rng):
    rows = []
    normal, anomalous = scores[labels == 0], scores[labels == 1]
    for _ in range(replicates):
        again = np.concatenate([rng.choice(normal, len(normal)), rng.choice(anomalous, len(anomalous))])
        ranking = Ranking(again, labels)
        rows.append([ranking.aupr("out"), ranking.detection_error(), ranking.f1_max().value])
    return np.array(rows)


@pytest.mark.parametrize(("limit", "levels"), [(2048, None), (2048, 3), (25, None)])
def test_replicates_have_the_law_of_resorted_resamples(monkeypatch, limit, levels):
    monkeypatch.setattr(intervals, "_CELLS", limit)
    caught = {}
    monkeypatch.setattr(intervals, "mirrored", lambda value, drawn, *_: caught.setdefault(value, drawn))
    scores, labels = gaussian(np.random.default_rng(2), 120, 80, 1.2, levels)
    ranking = Ranking(scores, labels)
    metrics = {
        "aupr_out": CurveMetric(ranking.aupr("out"), average_precision_of),
        "detection_error": CurveMetric(ranking.detection_error(), detection_error_of),
        "f1_max": CurveMetric(ranking.f1_max().value, f1_max_of),
    }
    bootstrap(ranking, "out", metrics, replicates=2000)
    expected = drawn_by_resorting(scores, labels, 1000, np.random.default_rng(3))
    joined = limit < 80
    for column, metric in enumerate(metrics.values()):
        drawn, other = caught[metric.value], expected[:, column]
        assert drawn.std() == pytest.approx(other.std(), rel=0.2 if joined else 0.1)
        assert drawn.mean() == pytest.approx(other.mean(), abs=(0.4 if joined else 0.15) * other.std())


def test_joined_cells_change_the_interval_little():
    scores, labels = gaussian(np.random.default_rng(4), 6000, 5000, 1)
    ranking = Ranking(scores, labels)
    assert not cells(ranking, "out").exact
    metric = {"aupr_out": CurveMetric(ranking.aupr("out"), average_precision_of)}
    joined = bootstrap(ranking, "out", metric)["aupr_out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_CELLS", 10**6)
        exact = bootstrap(ranking, "out", metric)["aupr_out"]
    width = exact.high - exact.low
    assert joined.value == exact.value
    assert abs(joined.low - exact.low) < 0.1 * width
    assert abs(joined.high - exact.high) < 0.1 * width


@pytest.mark.parametrize("positive", ["in", "out"])
def test_the_interval_of_fpr_at_tpr_has_the_width_of_a_resorted_bootstrap(positive):
    rng = np.random.default_rng(6)
    scores, labels = gaussian(rng, 400, 300, 1.5)
    normal, anomalous = scores[labels == 0], scores[labels == 1]
    drawn = [
        Ranking(np.concatenate([rng.choice(normal, 400), rng.choice(anomalous, 300)]), labels).fpr_at_tpr(
            0.9, positive=positive
        )
        for _ in range(1500)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    got = fpr_at_tpr_interval(Ranking(scores, labels), 0.9, positive=positive, replicates=4000)
    assert got.low == pytest.approx(low, abs=0.12 * (high - low))
    assert got.high == pytest.approx(high, abs=0.12 * (high - low))


@pytest.mark.parametrize(("normal", "anomalous", "shift"), [(200, 200, 1.5), (300, 30, 1.5)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(normal, anomalous, shift):
    rng = np.random.default_rng(7)
    many = evaluate_scores(*gaussian(rng, 500 * normal, 500 * anomalous, shift), replicates=10)
    draws = 120
    held = dict.fromkeys(NAMES, 0)
    for draw in range(draws):
        result = evaluate_scores(*gaussian(rng, normal, anomalous, shift), confidence=0.9, seed=draw, replicates=200)
        for name in NAMES:
            held[name] += result[name]["low"] <= many[name]["value"] <= result[name]["high"]
    # 0.9 promised; 0.78 is four standard deviations below it in 120 draws.
    assert min(held.values()) / draws > 0.78, held


def test_mirroring_takes_optimism_away():
    # Replicates lie above the value as the value lies above the truth: the interval must lean down.
    drawn = np.random.default_rng(0).normal(0.72, 0.02, 4000)
    estimate = mirrored(0.70, drawn, 0.95)
    assert 0.70 - estimate.low > 2 * (estimate.high - 0.70)
    assert mirrored(0.45, np.full(10, 0.5), 0.9, highest=0.5).high <= 0.5


def test_evaluate_scores_names_values_and_seeds():
    scores, labels = gaussian(np.random.default_rng(8), 80, 70, 1)
    result = evaluate_scores(scores, labels, seed=3)
    ranking = Ranking(scores, labels)
    assert list(result) == NAMES
    assert {name: entry["value"] for name, entry in result.items()} == {
        "auroc": ranking.auroc(),
        "aupr_in": ranking.aupr("in"),
        "aupr_out": ranking.aupr("out"),
        "fpr_at_tpr95": ranking.fpr_at_tpr(0.95, positive="in"),
        "detection_error": ranking.detection_error(),
        "f1_max": ranking.f1_max().value,
    }
    assert result["f1_max"]["threshold"] == ranking.f1_max().threshold
    assert all(type(number) is float for entry in result.values() for number in entry.values())
    assert evaluate_scores(scores, labels, seed=3) == result
    assert evaluate_scores(scores, labels, seed=4) != result
    wider = evaluate_scores(scores, labels, confidence=0.999, seed=3)
    assert all(wider[n]["low"] < result[n]["low"] and wider[n]["high"] > result[n]["high"] for n in NAMES)


@pytest.mark.parametrize("confidence", [0, 1, -1, 95, float("nan")])
def test_confidence_must_be_a_probability(confidence):
    with pytest.raises(ValueError, match="confidence: expected a number strictly between 0 and 1"):
        evaluate_scores([1, 2], [0, 1], confidence=confidence)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(60))
def test_tiny_and_tied_sets_give_ordered_finite_intervals(seed):
    rng = np.random.default_rng(seed)
    normal, anomalous, levels = rng.integers(1, 9, 3)
    scores = rng.integers(0, levels, normal + anomalous).astype(np.float32)
    scores[rng.integers(len(scores))] = rng.choice([0, np.inf, -np.inf])
    result = evaluate_scores(scores, np.repeat([0, 1], [normal, anomalous]), seed=seed, replicates=30)
    for name, entry in result.items():
        top = 0.5 if name == "detection_error" else 1.0
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= top, name
