"""Intervals against scipy and by coverage."""

import numpy as np
import pytest
from scipy import stats

from dracones.anatomy.estimates import auroc_estimate, correlation_estimate, difference_estimate, mean_estimate


def test_mean_interval_is_students():
    values = np.random.default_rng(0).normal(3, 2, 17)
    estimate = mean_estimate(values)
    low, high = stats.t.interval(0.95, 16, values.mean(), stats.sem(values))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((values.mean(), low, high))


def test_difference_interval_is_welchs():
    rng = np.random.default_rng(1)
    first, second = rng.normal(1, 1, 12), rng.normal(0, 3, 30)
    estimate = difference_estimate(first, second)
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((welch.low, welch.high))
    assert estimate.value == pytest.approx(first.mean() - second.mean())


def test_correlation_interval_is_fishers():
    rng = np.random.default_rng(2)
    first = rng.normal(size=25)
    second = 0.7 * first + rng.normal(size=25)
    estimate = correlation_estimate(first, second)
    expected = stats.pearsonr(first, second)
    interval = expected.confidence_interval()
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((expected[0], interval.low, interval.high))
    tiny = correlation_estimate([1, 2, 3.0], [1, 2, 4.0])
    assert (tiny.low, tiny.high) == (-1, 1)


def test_small_sets_give_wide_intervals():
    few = auroc_estimate([0, 1, 2], [3, 4, 5])
    many = auroc_estimate(np.arange(300), np.arange(300, 600))
    assert few.value == many.value == 1
    assert few.high - few.low > 0.3
    assert many.high - many.low < 0.05


def test_mean_interval_covers():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        estimate = mean_estimate(rng.normal(size=5))
        inside += estimate.low <= 0 <= estimate.high
    assert 0.91 < inside / 400 < 0.98


def test_refusals():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        mean_estimate([1.0])
    with pytest.raises(ValueError, match="1 of 3 values are not finite"):
        mean_estimate([1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="one length, got 2 and 3"):
        correlation_estimate([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="constant"):
        correlation_estimate([1.0, 1.0], [1.0, 2.0])
