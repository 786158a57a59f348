import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dracones.rules import EmpiricalTail
from dracones.rules.normal_scores import NormalScores


def fitted(values, *, upper=True):
    tail = EmpiricalTail(upper=upper)
    tail.fit({"value": torch.as_tensor(values).double()})
    return tail


def test_p_values_are_conformal_at_the_sample_points():
    sample = torch.arange(9.0)
    tail = fitted(sample)
    p = tail.log_p(sample.double()).exp()
    expected = (9 - torch.arange(9.0) + 1).double() / 10
    torch.testing.assert_close(p, expected)
    assert float(tail.log_p(torch.tensor([-5.0]).double())) == 0.0


def test_lower_tail_is_the_upper_one_mirrored():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    grid = torch.linspace(-4, 4, 41).double()
    torch.testing.assert_close(fitted(values, upper=False).log_p(grid), fitted(-values).log_p(-grid))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.booleans())
def test_log_p_never_rises_towards_the_tail(values, upper):
    tail = fitted(values, upper=upper)
    grid = torch.linspace(-300, 300, 601).double()
    log_p = tail.log_p(grid if upper else -grid)
    assert bool((log_p.diff() <= 1e-12).all())
    assert bool((log_p <= 0).all())
    assert bool(torch.isfinite(log_p).all())


def test_beyond_the_sample_order_is_kept_and_the_exponential_has_its_rate():
    generator = torch.Generator().manual_seed(0)
    sample = -torch.log(torch.rand(20_000, generator=generator).double())  # exponential of rate 1
    tail = fitted(sample)
    log_p = tail.log_p(torch.tensor([15.0, 20.0, 25.0]).double())
    assert log_p.diff().tolist() == pytest.approx([-5.0, -5.0], rel=0.1)


def test_the_tail_goes_on_with_the_mean_excess_of_the_upper_tenth():
    """A sample whose upper tenth is 10 times as wide as what lies below: the wide part alone sets the slope."""
    sample = torch.cat([torch.arange(90.0), 90 + 10 * torch.arange(11.0)])
    tail = fitted(sample)
    top = sample[90:] - 90
    slope = tail.log_p(torch.tensor([500.0, 501.0]).double()).diff()
    assert float(slope) == pytest.approx(-1 / float(top.mean()))


def test_a_flat_tail_falls_by_a_thousandth_of_the_spread():
    """The upper tenth is one value: it gives no unit, and what lies beyond it is far out at once, but finite."""
    sample = torch.cat([torch.arange(90.0), torch.full((11,), 90.0)])
    slope = fitted(sample).log_p(torch.tensor([91.0, 92.0]).double()).diff()
    assert float(slope) == pytest.approx(-1000 / float(sample.std()), rel=1e-6)


def test_p_values_of_normal_values_are_uniform():
    generator = torch.Generator().manual_seed(1)
    tail = fitted(torch.randn(2000, generator=generator))
    p = tail.log_p(torch.randn(5000, generator=generator).double()).exp()
    for level in (0.01, 0.1, 0.5):
        assert float((p <= level).double().mean()) == pytest.approx(level, abs=0.03)


def test_normal_scores_of_a_skewed_statistic_are_normal():
    values = torch.rand(5000, generator=torch.Generator().manual_seed(0)).double().pow(4)
    scores = NormalScores(("x",))
    scores.fit({"x": values})
    z = scores.transform({"x": values})[:, 0]
    assert float(z.mean()) == pytest.approx(0, abs=0.03)
    assert float(z.std()) == pytest.approx(1, abs=0.05)
    assert float(torch.quantile(z, 0.9)) == pytest.approx(1.2816, abs=0.02)


def test_normal_scores_keep_far_values_far_and_in_order():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).double()
    scores = NormalScores(("x",))
    scores.fit({"x": values})
    z = scores.transform({"x": torch.tensor([-200.0, -100.0, -3.0, 0.0, 3.0, 100.0, 200.0]).double()})[:, 0]
    assert bool((z.diff() > 0).all())
    assert float(z[-1]) == pytest.approx(200, rel=0.3)
    assert float(z[0]) == pytest.approx(-200, rel=0.3)


def test_each_statistic_has_a_scale_of_its_own():
    generator = torch.Generator().manual_seed(5)
    made = torch.randn(400, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 50.0, 0.01])
    fitted = {"a": made[:, 0], "b": made[:, 1].exp().clamp_max(1e9), "c": made[:, 2].clamp_min(0)}
    seen = {name: values[:40] * 1.5 for name, values in fitted.items()}

    def scored(*names):
        scores = NormalScores(names)
        scores.fit(fitted)
        return scores.transform(seen)

    together = scored("b", "c", "a")
    for place, name in enumerate(("b", "c", "a")):
        assert torch.equal(together[:, place], scored(name)[:, 0])


def test_normal_scores_of_a_constant_statistic_stay_finite():
    scores = NormalScores(("x",))
    scores.fit({"x": torch.full((50,), 3.0)})
    z = scores.transform({"x": torch.tensor([3.0, 4.0])})[:, 0]
    assert bool(torch.isfinite(z).all())
    assert float(z[1]) > float(z[0])
