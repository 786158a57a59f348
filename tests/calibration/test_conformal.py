"""Conformal calibration: the formulas, the refusals, and by simulation the promise."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dracones.calibration import Conformal, TooFewScores, clopper_pearson, realised_rate
from dracones.calibration.conformal import _largest_safe_rank

DRAWS = 1000


def simulated_rates(count, rate, confidence=None, levels=None):
    """The rate each of 1,000 calibration sets really has: scores are uniform, so it can be computed, not counted."""
    rng = np.random.default_rng(0)
    thresholds = []
    for scores in rng.random((DRAWS, count)):
        tied = scores if levels is None else np.floor(scores * levels)
        thresholds.append(Conformal().fit(tied).threshold(rate, confidence))
    if levels is None:
        return 1 - np.array(thresholds)
    return 1 - (np.array(thresholds) + 1) / levels


@pytest.mark.parametrize(("count", "rate"), [(99, 0.01), (60, 0.05), (500, 0.1), (1000, 0.01)])
def test_on_average_the_realised_rate_is_the_promised_one(count, rate):
    rates = simulated_rates(count, rate)
    promised = np.floor(rate * (count + 1) + 1e-9) / (count + 1)
    spread = rates.std() / np.sqrt(DRAWS)
    assert promised <= rate
    assert abs(rates.mean() - promised) < 4 * spread


@pytest.mark.parametrize(
    ("count", "rate", "confidence"), [(299, 0.01, 0.95), (400, 0.05, 0.9), (60, 0.1, 0.99), (2000, 0.02, 0.8)]
)
def test_with_confidence_few_sets_break_the_promise(count, rate, confidence):
    rates = simulated_rates(count, rate, confidence)
    broken = int((rates > rate).sum())
    # The law of the rate is known: the breaks are binomial, with a share of at most 1 - confidence ...
    rank = _largest_safe_rank(count, rate, confidence)
    share = stats.beta.sf(rate, rank, count + 1 - rank)
    assert share <= 1 - confidence
    assert stats.binom.ppf(1e-5, DRAWS, share) <= broken <= stats.binom.ppf(1 - 1e-5, DRAWS, share)
    # ... and the next threshold down would break it more often: nothing is given away.
    assert stats.beta.sf(rate, rank + 1, count - rank) > 1 - confidence


@pytest.mark.parametrize("confidence", [None, 0.9])
def test_ties_only_lower_the_rate(confidence):
    rates = simulated_rates(300, 0.05, confidence, levels=12)
    if confidence is None:
        assert rates.mean() <= 0.05
    else:
        assert (rates > 0.05).mean() <= 0.1


def test_p_values_are_conservative_and_randomised_ones_uniform():
    rng = np.random.default_rng(0)
    plain, randomised = [], []
    for _ in range(DRAWS):
        scores = rng.integers(0, 6, 41)
        conformal = Conformal().fit(scores[:40])
        plain.append(conformal.p_values(scores[40:])[0])
        randomised.append(conformal.p_values(scores[40:], seed=rng)[0])
    for rate in (0.05, 0.2, 0.5, 0.9):
        margin = 4 * np.sqrt(rate * (1 - rate) / DRAWS)
        assert np.mean(np.array(plain) <= rate) <= rate + margin
        assert abs(np.mean(np.array(randomised) <= rate) - rate) <= margin
    assert stats.kstest(randomised, "uniform").pvalue > 1e-4


scores_strategy = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


@given(scores_strategy, scores_strategy)
@settings(max_examples=200, deadline=None)
def test_p_values_follow_the_formula(calibration, asked):
    conformal = Conformal().fit(calibration)
    expected = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in asked]
    assert conformal.p_values(asked).tolist() == expected
    lower = [(sum(c > s for c in calibration)) / (len(calibration) + 1) for s in asked]
    randomised = conformal.p_values(asked, seed=0)
    assert np.all((randomised > lower) & (randomised <= expected))


@given(
    scores_strategy, scores_strategy, st.sampled_from([0.05, 0.1, 0.25, 0.29, 0.5, 0.9]), st.sampled_from([None, 0.9])
)
@settings(max_examples=300, deadline=None)
def test_threshold_level_and_verdict_agree(calibration, asked, rate, confidence):
    conformal = Conformal().fit(calibration)
    needed = Conformal.needed_count(rate, confidence)
    if len(calibration) < needed:
        with pytest.raises(
            TooFewScores, match=f"needs at least {needed} scores of normal images, got {len(calibration)}"
        ):
            conformal.threshold(rate, confidence)
        return
    verdicts = conformal.is_anomalous(asked, rate, confidence)
    assert np.array_equal(verdicts, np.array(asked) > conformal.threshold(rate, confidence))
    assert np.array_equal(verdicts, conformal.p_values(asked) <= conformal.level(rate, confidence))
    assert conformal.level(rate, confidence) <= rate + 1e-15 or confidence is not None


def test_rates_mean_what_is_written():
    # The float 0.29 times 100 is 28.999999999999996; the promise of 0.29 allows rank 29 all the same.
    assert Conformal().fit(np.arange(99)).rank(0.29) == 29


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"),
    [(0.01, None, 99), (0.05, None, 19), (0.5, None, 1), (0.9, None, 1), (0.01, 0.95, 299), (0.05, 0.95, 59)],
)
def test_needed_counts(rate, confidence, needed):
    assert Conformal.needed_count(rate, confidence) == needed
    assert Conformal().fit(np.arange(needed)).threshold(rate, confidence) == needed - Conformal().fit(
        np.arange(needed)
    ).rank(rate, confidence)
    if needed > 1:
        with pytest.raises(TooFewScores, match=f"needs at least {needed} .* got {needed - 1}; add 1 more") as caught:
            Conformal().fit(np.arange(needed - 1)).threshold(rate, confidence)
        assert (caught.value.given, caught.value.needed) == (needed - 1, needed)


@given(st.integers(1, 400), st.floats(0.001, 0.999), st.floats(0.01, 0.999))
@settings(max_examples=200, deadline=None)
def test_safe_rank_is_the_largest(count, rate, confidence):
    rank = _largest_safe_rank(count, rate, confidence)
    if rank:
        assert stats.beta.cdf(rate, rank, count + 1 - rank) >= confidence - 1e-9
    if rank < count:
        assert stats.beta.cdf(rate, rank + 1, count - rank) < confidence + 1e-9


def test_rate_intervals_are_the_beta_and_beta_binomial_laws():
    conformal = Conformal().fit(np.arange(999))
    law = stats.beta(50, 950)
    assert conformal.rate_interval(0.05) == pytest.approx((law.ppf(0.025), law.ppf(0.975)))
    counts = stats.betabinom(400, 50, 950)
    assert conformal.rate_interval(0.05, images=400) == (counts.ppf(0.025) / 400, counts.ppf(0.975) / 400)
    rates = simulated_rates(999, 0.05)
    low, high = conformal.rate_interval(0.05)
    assert np.mean((rates >= low) & (rates <= high)) == pytest.approx(0.95, abs=0.03)
    with pytest.raises(ValueError, match="images: expected at least one"):
        conformal.rate_interval(0.05, images=0)


@pytest.mark.parametrize(("count", "total"), [(0, 30), (30, 30), (3, 200), (1, 1)])
def test_clopper_pearson_is_scipys(count, total):
    expected = stats.binomtest(count, total).proportion_ci(0.9)
    got = clopper_pearson(count, total, 0.9)
    assert (got.value, got.low, got.high) == pytest.approx((count / total, expected.low, expected.high))
    verdicts = np.arange(total) < count
    assert realised_rate(verdicts, 0.9) == got
    assert realised_rate(torch.tensor(verdicts), 0.9) == got


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_state_round_trip(kind):
    rng = np.random.default_rng(0)
    conformal = Conformal().fit(rng.standard_normal(50).astype(kind))
    arrays, numbers = conformal.state()
    asked = rng.standard_normal(20).astype(kind)
    as_json = json.loads(json.dumps([{name: array.tolist() for name, array in arrays.items()}, numbers]))
    as_tensors = {name: torch.as_tensor(array) for name, array in arrays.items()}
    for again in (
        Conformal.from_state(arrays, numbers),
        Conformal.from_state(*as_json),
        Conformal.from_state(as_tensors, numbers),
    ):
        assert np.array_equal(again.p_values(asked), conformal.p_values(asked))
        assert again.threshold(0.1, 0.9) == conformal.threshold(0.1, 0.9)
    assert arrays["scores"].dtype == kind
    assert len(Conformal.from_state(*Conformal().state())) == 0


def test_damaged_state_is_refused():
    arrays, numbers = Conformal().fit([1.0, 2.0]).state()
    with pytest.raises(ValueError, match="expected 2 scores, got 1"):
        Conformal.from_state({"scores": arrays["scores"][:1]}, numbers)
    with pytest.raises(ValueError, match="expected the array 'scores'"):
        Conformal.from_state({}, numbers)
    with pytest.raises(ValueError, match="1 of 2 are NaN"):
        Conformal.from_state({"scores": np.array([1, np.nan])}, numbers)


def test_float32_scores_meet_their_own_threshold():
    # 0.1 in float32 is above 0.1 in float64: rounding either side would raise a false alarm at a tie.
    scores = np.linspace(0.1, 0.9, 99, dtype=np.float32)
    conformal = Conformal().fit(scores)
    assert conformal.is_anomalous(scores, 0.05).sum() == 4
    assert conformal.is_anomalous(scores.astype(np.float64), 0.05).sum() == 4
    assert conformal.is_anomalous(torch.tensor(scores), 0.05).sum() == 4


def test_what_is_refused():
    conformal = Conformal().fit(np.arange(100))
    for rate in (0, 1, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="false_alarm_rate: expected a number strictly between 0 and 1"):
            conformal.threshold(rate)
    with pytest.raises(ValueError, match="confidence: expected"):
        conformal.threshold(0.1, 1.0)
    with pytest.raises(ValueError, match="2 of 3 are NaN"):
        conformal.p_values([np.nan, 1, np.nan])
    with pytest.raises(ValueError, match="calibration scores: 1 of 2 are NaN"):
        Conformal().fit([np.nan, 1])
    with pytest.raises(ValueError, match="at least one, got none"):
        Conformal().fit([])
    with pytest.raises(ValueError, match=r"call fit\(scores\) first"):
        Conformal().p_values([1.0])
    with pytest.raises(ValueError, match=r"call fit\(scores\) first"):
        Conformal().threshold(0.1)
    with pytest.raises(ValueError, match="were these scores"):
        realised_rate([0.3, 0.7])
    with pytest.raises(ValueError, match="at least one verdict"):
        realised_rate([])
    with pytest.raises(ValueError, match="got 3 of 2"):
        clopper_pearson(3, 2)


def test_calibration_scores_cannot_be_changed_behind_its_back():
    scores = np.array([3.0, 1.0, 2.0])
    conformal = Conformal().fit(scores)
    scores[:] = 9
    assert conformal.scores.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        conformal.scores[0] = 5
    assert repr(conformal) == "Conformal(3 scores from 1 to 3)"


def test_shapes_are_kept():
    conformal = Conformal().fit(np.arange(50.0))
    assert conformal.p_values(np.zeros((2, 3))).shape == (2, 3)
    assert conformal.p_values(7.0).shape == ()
    assert conformal.is_anomalous(np.zeros((2, 3)), 0.1).shape == (2, 3)


def test_no_torch_at_import():
    code = "import sys, dracones.calibration; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
