"""Alarms: counts, and the interval that was asked for."""

import numpy as np
import pytest
from scipy.stats import binomtest

from dracones.detectors.alarms import Alarms


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_of_the_confidence_that_is_asked(confidence):
    found = Alarms.of(np.arange(40) < 7, confidence)
    exact = binomtest(7, 40).proportion_ci(confidence, method="exact")
    assert (found.count, found.total, found.share.value) == (7, 40, pytest.approx(7 / 40))
    assert (found.share.low, found.share.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
