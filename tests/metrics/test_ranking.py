"""The threshold metrics against scikit-learn, under ties, infinities, and every dtype."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn

from dracones import metrics
from dracones.metrics import Ranking, ranking, staircase

TOLERANCE = 1e-9


@st.composite
def scores_and_labels(draw, kinds=("float32", "float64")):
    """Both classes present; sometimes few distinct values (heavy ties), sometimes any float."""
    size = draw(st.integers(2, 60))
    kind = np.dtype(draw(st.sampled_from(kinds)))
    width = 8 * kind.itemsize
    few = st.integers(0, draw(st.integers(0, 12))).map(float)
    any_float = st.floats(-(2.0**100), 2.0**100, width=width)
    scores = draw(hnp.arrays(kind, size, elements=draw(st.sampled_from([few, any_float]))))
    labels = draw(hnp.arrays(np.int64, size, elements=st.integers(0, 1)))
    labels[0], labels[-1] = 0, 1
    return scores, labels


def reference(scores, labels, tpr=0.95):
    """All metrics by scikit-learn's curves; one threshold at a time."""
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
    alarms, found, _ = sklearn.roc_curve(labels, scores, drop_intermediate=False)
    missed_in, accepted_in, _ = sklearn.roc_curve(1 - labels, -scores.astype(np.float64), drop_intermediate=False)
    with np.errstate(invalid="ignore"):
        f1 = np.nanmax(2 * precision * recall / (precision + recall))
    return {
        "auroc": sklearn.roc_auc_score(labels, scores),
        "aupr_in": sklearn.average_precision_score(1 - labels, -scores.astype(np.float64)),
        "aupr_out": sklearn.average_precision_score(labels, scores),
        "trapezoid": sklearn.auc(recall, precision),
        "fpr_out": alarms[np.argmax(found >= tpr)],
        "fpr_in": missed_in[np.argmax(accepted_in >= tpr)],
        "detection_error": (0.5 * (1 - found + alarms)).min(),
        "f1_max": f1,
    }


def ours(scores, labels, tpr=0.95):
    return {
        "auroc": metrics.auroc(scores, labels),
        "aupr_in": metrics.aupr_in(scores, labels),
        "aupr_out": metrics.aupr_out(scores, labels),
        "trapezoid": metrics.aupr_out(scores, labels, area="trapezoid"),
        "fpr_out": metrics.fpr_at_tpr(scores, labels, tpr, positive="out"),
        "fpr_in": metrics.fpr_at_tpr(scores, labels, tpr),
        "detection_error": metrics.detection_error(scores, labels),
        "f1_max": metrics.f1_max(scores, labels).value,
    }


@given(scores_and_labels(), st.sampled_from([0.05, 0.07, 0.5, 0.8, 0.95, 1.0]))
@settings(max_examples=150, deadline=None)
def test_equal_to_scikit_learn(data, tpr):
    expected, got = reference(*data, tpr), ours(*data, tpr)
    assert got == pytest.approx(expected, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("levels", [3, 40, 10**6])
@pytest.mark.parametrize("block", [1, 7, 1 << 16])
def test_no_seam_between_blocks(monkeypatch, block, levels):
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, levels, 500).astype(np.float32), rng.integers(0, 2, 500)
    expected = reference(scores, labels)
    monkeypatch.setattr(ranking, "BLOCK", block)
    monkeypatch.setattr(staircase, "BLOCK", block)
    assert ours(scores, labels) == pytest.approx(expected, abs=TOLERANCE, rel=0)


@given(scores_and_labels())
@settings(max_examples=100, deadline=None)
def test_swapping_the_classes_mirrors_everything(data):
    scores, labels = data
    mirrored = ours(-scores, 1 - labels)
    assert mirrored["auroc"] == ours(scores, labels)["auroc"]
    assert mirrored["aupr_in"] == pytest.approx(metrics.aupr_out(scores, labels), abs=TOLERANCE)
    assert mirrored["fpr_in"] == metrics.fpr_at_tpr(scores, labels, positive="out")
    assert mirrored["detection_error"] == metrics.detection_error(scores, labels)


@given(scores_and_labels(kinds=("float32",)))
@settings(max_examples=100, deadline=None)
def test_only_the_order_matters(data):
    scores, labels = data
    ranks = np.unique(scores, return_inverse=True)[1]
    values = ours(scores, labels)
    assert ours(ranks, labels) == values
    assert ours(1e300 * (ranks - 3.5), labels) == values
    assert ours(ranks.astype(np.uint8), labels) == values


def test_infinities_are_scores():
    scores = np.array([-np.inf, 0, np.inf, np.inf])
    ranking_ = Ranking(scores, [0, 0, 0, 1])
    assert ranking_.auroc() == pytest.approx((1 + 1 + 0.5) / 3)
    assert ranking_.f1_max().threshold == np.inf
    assert ranking_.thresholds.tolist() == [-np.inf, 0, np.inf]


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_minus_zero_ties_with_zero(kind):
    assert metrics.auroc(np.array([-0.0, 0.0], dtype=kind), [0, 1]) == 0.5
    assert metrics.auroc(np.array([0.0, -0.0, 0.1], dtype=np.float64) + (kind == "float64") * 0, [0, 1, 1]) == 0.75


def test_float64_is_not_rounded_to_float32():
    scores = 1 + np.arange(4) * 1e-12
    assert len(set(scores.astype(np.float32))) == 1
    assert metrics.auroc(scores, [0, 1, 0, 1]) == 0.75
    assert metrics.f1_max(scores, [0, 0, 0, 1]) == (1.0, scores[3])


def test_float64_that_fits_float32_takes_the_fast_way_to_the_same_numbers():
    rng = np.random.default_rng(1)
    scores, labels = rng.standard_normal(1000).astype(np.float32), rng.integers(0, 2, 1000)
    assert ours(scores.astype(np.float64), labels) == ours(scores, labels)
    beyond = np.where(scores > 0, 1e300, -1e300)
    assert metrics.auroc(beyond, labels) == metrics.auroc(scores > 0, labels)


def test_large_integers_are_exact_or_refused():
    labels = [0, 1]
    assert metrics.auroc(np.array([2**24, 2**24 + 1]), labels) == 1.0
    assert metrics.auroc(np.array([2**53 - 1, 2**53]), labels) == 1.0
    with pytest.raises(ValueError, match=r"beyond 2\^53"):
        metrics.auroc(np.array([2**53, 2**53 + 1]), labels)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_tensors_are_accepted(kind):
    values = torch.tensor([1.0, 4.0, 3.0, 8.0]).to(kind)
    if values.is_floating_point():
        values.requires_grad_()
    assert metrics.auroc(values, torch.tensor([0, 0, 1, 1])) == 0.75
    assert metrics.auroc(values, torch.tensor([False, False, True, True])) == 0.75


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_of_a_gpu_are_accepted():
    assert metrics.auroc(torch.tensor([1.0, 2.0]).cuda().bfloat16(), torch.tensor([0, 1]).cuda()) == 1.0


def test_inputs_are_left_as_they_were():
    scores, labels = np.array([3, -0.0, 1], dtype=np.float32), np.array([1, 0, 1])
    copies = scores.copy(), labels.copy()
    ours(scores, labels)
    assert np.array_equal(scores, copies[0])
    assert np.signbit(scores[1])
    assert np.array_equal(labels, copies[1])


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 2, 6)])
def test_any_shape(shape):
    scores = np.arange(12.0).reshape(shape)
    assert metrics.auroc(scores, scores > 5) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan, np.nan], [0, 1, 0], "2 of 3 are NaN"),
        ([0.1, 0.2], [0, 0], r"all 2 are normal \(0\)"),
        ([0.1, 0.2], [1, 1], r"all 2 are anomalous \(1\)"),
        ([0.1, 0.2], [0, 1, 1], r"same shape, got \(2,\) and \(3,\)"),
        ([0.1, 0.2], [0, 2], "got 1 other values such as 2"),
        ([0.1, 0.2], [-1, 1], "got 1 other values such as -1"),
        ([], [], "none at all"),
    ],
)
def test_what_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.auroc(scores, np.array(labels))


def test_a_nan_label_is_refused():
    with pytest.raises(ValueError, match="expected 0"):
        metrics.auroc([0.1, 0.2], [0, np.nan])


@pytest.mark.parametrize("scores", [["a", "b"], [1j, 2j], np.array([1, 2], dtype="datetime64[s]")])
def test_what_is_no_number_is_refused(scores):
    with pytest.raises(TypeError, match="expected real numbers"):
        metrics.auroc(scores, [0, 1])
    with pytest.raises(TypeError, match="expected booleans"):
        metrics.auroc([1, 2], scores)


def test_misspelt_options_are_refused():
    scores, labels = [0.1, 0.2], [0, 1]
    with pytest.raises(ValueError, match=r"'in' .normal, label 0. or 'out'"):
        metrics.fpr_at_tpr(scores, labels, positive="anomalous")
    with pytest.raises(ValueError, match="'average_precision' or 'trapezoid'"):
        metrics.aupr_out(scores, labels, area="auc")
    for rate in (0, 1.5, -1):
        with pytest.raises(ValueError, match=r"a rate in \(0, 1\]"):
            metrics.fpr_at_tpr(scores, labels, rate)


@given(scores_and_labels(), st.floats(0.01, 1), st.sampled_from(["in", "out"]))
@settings(max_examples=100, deadline=None)
def test_operating_points_do_what_they_say(data, rate, positive):
    scores, labels = data
    point = Ranking(scores, labels).operating_point(rate, positive)
    called = scores <= point.threshold if positive == "in" else scores >= point.threshold
    is_positive = labels == (positive == "out")
    assert called[is_positive].mean() == point.true_positive_rate >= rate
    assert called[~is_positive].mean() == point.false_positive_rate
    stricter = scores < point.threshold if positive == "in" else scores > point.threshold
    assert stricter[is_positive].mean() < rate


@given(scores_and_labels())
@settings(max_examples=100, deadline=None)
def test_the_threshold_of_f1_max_reaches_it_and_none_higher_does(data):
    scores, labels = data
    best = metrics.f1_max(scores, labels)
    values = {t: sklearn.f1_score(labels, scores >= t) for t in np.unique(scores)}
    assert values[best.threshold] == pytest.approx(best.value, abs=TOLERANCE)
    assert best.threshold == max(t for t, value in values.items() if value >= best.value - 1e-12)


def test_rates_are_compared_as_written():
    # 0.07 x 100 is 7.000000000000001 in floating point; seven of a hundred are enough all the same.
    assert staircase.needed_count(0.07, 100) == 7
    assert staircase.needed_count(1e-9, 100) == 1
    assert staircase.needed_count(1.0, 100) == 100


def test_no_torch_at_import():
    code = "import sys, dracones.metrics as m; m.auroc([1, 2], [0, 1]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
