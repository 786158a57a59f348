"""ROC and PR curves, point by point."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from dracones.metrics import Ranking, pr_curve, roc_curve


@pytest.fixture(params=[2, 9, 10**6], ids=lambda levels: f"{levels} levels")
def data(request):
    rng = np.random.default_rng(request.param)
    return rng.integers(0, request.param, 200).astype(np.float32), rng.integers(0, 2, 200)


@pytest.mark.parametrize("corners_only", [True, False])
def test_roc_is_scikit_learns(data, corners_only):
    scores, labels = data
    curve = roc_curve(scores, labels, corners_only=corners_only)
    alarms, found, thresholds = sklearn.roc_curve(labels, scores, drop_intermediate=corners_only)
    if not corners_only:
        assert np.array_equal(curve.threshold, thresholds)
        np.testing.assert_allclose(curve.false_positive_rate, alarms, atol=1e-12)
        np.testing.assert_allclose(curve.true_positive_rate, found, atol=1e-12)
    np.testing.assert_allclose(
        np.interp(np.linspace(0, 1, 999), curve.false_positive_rate, curve.true_positive_rate),
        np.interp(np.linspace(0, 1, 999), alarms, found),
        atol=1e-12,
    )
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(Ranking(scores, labels).auroc(), abs=1e-12)


def test_corners_are_all_there_is():
    curve = roc_curve([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1])
    assert curve.false_positive_rate.tolist() == [0, 0, 1]
    assert curve.threshold.tolist() == [np.inf, 4, 1]


def test_pr_is_scikit_learns(data):
    scores, labels = data
    curve = pr_curve(scores, labels)
    precision, recall, thresholds = sklearn.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision, precision[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[::-1], atol=1e-12)
    assert np.array_equal(curve.threshold, np.append(np.inf, thresholds[::-1]))


def test_pr_of_the_normal_class(data):
    scores, labels = data
    curve = pr_curve(scores, labels, positive="in")
    precision, recall, thresholds = sklearn.precision_recall_curve(1 - labels, -scores)
    np.testing.assert_allclose(curve.precision, precision[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[::-1], atol=1e-12)
    assert np.array_equal(curve.threshold, np.append(-np.inf, -thresholds[::-1]))
