"""Histograms that can be read: the normal set keeps its shape, whatever lies far away."""

import numpy as np
from matplotlib.figure import Figure

from dracones.anatomy.figures import histograms

NORMAL = np.random.default_rng(0).normal(0, 1, 2000)


def drawn(**sets):
    axes = Figure().subplots()
    histograms(axes, sets, label="nats")
    edges = [patch.get_xy()[:, 0] for patch in axes.patches]
    return float(min(edge.min() for edge in edges)), float(max(edge.max() for edge in edges)), axes


def test_a_far_set_is_gathered_in_the_outermost_bin_and_does_not_squeeze_the_normal_one():
    far = np.linspace(-30_000, -2_000, 1000)
    low, high, axes = drawn(normal=NORMAL, far=far)
    left, right = np.quantile(NORMAL, [0.01, 0.99])
    assert np.isclose(low, left - 3 * (right - left))
    assert np.quantile(NORMAL, 0.99) < high < 4
    heights = axes.patches[1].get_xy()[:, 1]
    assert np.isclose(heights.max() * (high - low) / 40, 1), "all of the far set is there, in one bin of unit area"


def test_near_sets_are_shown_whole():
    near = NORMAL + 3
    low, high, _ = drawn(normal=NORMAL, near=near)
    assert np.allclose([low, high], np.quantile(np.concatenate([NORMAL, near]), [0.002, 0.998]))


def test_sets_without_width_or_finite_values_have_a_window():
    assert drawn(normal=np.zeros(5), other=np.zeros(5))[:2] == (-0.5, 0.5)
    assert drawn(normal=np.full(5, np.nan))[:2] == (0.0, 1.0)
