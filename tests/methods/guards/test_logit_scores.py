"""Logit scores against hand-worked values and float64, where a float32 softmax has run out of digits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from dracones.methods.guards import Energy, Entropy, Gen, MaxLogit, Msp
from dracones.methods.guards.logits import log_probabilities

msp, max_logit, energy, entropy, gen = Msp.score, MaxLogit.score, Energy.score, Entropy.score, Gen.score
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 5.0, -3.0]])
SUM = math.exp(2) + math.exp(1) + 1


def test_msp_by_hand():
    expected = [1 - math.exp(2) / SUM, 2 / 3, 1 - math.exp(5) / (math.exp(-1) + math.exp(5) + math.exp(-3))]
    torch.testing.assert_close(msp(LOGITS), torch.tensor(expected), rtol=1e-6, atol=0)


def test_msp_temperature_by_hand():
    e = math.exp
    torch.testing.assert_close(
        msp(LOGITS[:1], temperature=2.0), torch.tensor([1 - e(1) / (e(1) + e(0.5) + 1)]), rtol=1e-6, atol=0
    )


def test_max_logit_by_hand():
    assert max_logit(LOGITS).tolist() == [-2.0, -0.0, -5.0]


def test_energy_by_hand():
    torch.testing.assert_close(energy(LOGITS)[:2], torch.tensor([-math.log(SUM), -math.log(3)]))


def test_energy_temperature_by_hand():
    expected = -10 * math.log(math.exp(0.2) + math.exp(0.1) + 1)
    assert energy(LOGITS[:1], temperature=10.0).item() == pytest.approx(expected, rel=1e-6)


def test_entropy_by_hand():
    p = [math.exp(2) / SUM, math.exp(1) / SUM, 1 / SUM]
    expected = [-sum(q * math.log(q) for q in p), math.log(3)]
    torch.testing.assert_close(entropy(LOGITS)[:2], torch.tensor(expected))


def test_gen_by_hand():
    p = [math.exp(2) / SUM, math.exp(1) / SUM, 1 / SUM]
    assert gen(LOGITS[:1]).item() == pytest.approx(sum((q * (1 - q)) ** 0.1 for q in p), rel=1e-6)
    assert gen(LOGITS[:1], gamma=0.5, top=2).item() == pytest.approx(sum((q * (1 - q)) ** 0.5 for q in p[:2]), rel=1e-6)


def test_gen_floor_is_the_clamp_of_pytorch_ood():
    logits = torch.tensor([[40.0, 0.0, -5.0]])
    p = torch.softmax(logits, 1).clamp(1e-7, 1 - 1e-7)  # in float32, as there
    assert gen(logits, floor=1e-7).item() == pytest.approx(float((p.pow(0.1) * (1 - p).pow(0.1)).sum()), rel=1e-5)
    assert gen(logits).item() < 0.1 * gen(logits, floor=1e-7).item()


@pytest.mark.parametrize("score", [msp, entropy, gen])
def test_sure_images_keep_their_order(score):
    logits = torch.stack([torch.tensor([x, 0.0, 0.0]) for x in range(15, 80, 5)])
    assert (torch.softmax(logits, 1).amax(1) == 1.0).sum() > 10  # what a plain softmax ties
    assert (score(logits).diff() < 0).all()


@pytest.mark.parametrize("gap", [0.0, 1.0, 10.0, 30.0, 60.0])
def test_agrees_with_float64_to_float32_precision(gap):
    logits = torch.tensor([[gap, 0.0, -0.5, -1.0]])
    others = math.fsum(math.exp(x - gap) for x in (0.0, -0.5, -1.0))
    assert msp(logits).item() == pytest.approx(others / (1 + others), rel=1e-6)
    assert log_probabilities(logits)[0, 0].item() == pytest.approx(-math.log1p(others), rel=1e-6)


@given(arrays(np.float64, (4, 5), elements=st.floats(-30, 30, width=32)))
@settings(max_examples=50, deadline=None)
def test_scipy_agrees(values):
    logits = torch.from_numpy(values)
    p = softmax(values, axis=1)
    np.testing.assert_allclose(msp(logits), 1 - p.max(1), atol=1e-12)
    np.testing.assert_allclose(entropy(logits), scipy_entropy(p, axis=1), atol=1e-10)
    np.testing.assert_allclose(log_probabilities(logits).exp(), p, atol=1e-12)


@pytest.mark.parametrize("score", [msp, entropy, gen])
def test_softmax_scores_ignore_a_shift(score):
    torch.testing.assert_close(score(LOGITS.double() + 100), score(LOGITS.double()))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [3e38, -3e38], [0.0, -torch.inf]])
    for score in (msp, entropy, gen, energy, max_logit):
        assert torch.isfinite(score(logits[:2])).all(), score.__name__


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype):
    assert msp(LOGITS.to(dtype)).dtype == torch.float32
    torch.testing.assert_close(msp(LOGITS.to(dtype)), msp(LOGITS))


def test_an_image_does_not_depend_on_its_batch():
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    for score in (msp, entropy, gen, energy, max_logit):
        torch.testing.assert_close(score(logits)[7:8], score(logits[7:8]), rtol=0, atol=0)


@pytest.mark.parametrize("score", [msp, entropy, gen, energy, max_logit])
def test_what_are_no_logits_is_refused(score):
    with pytest.raises(ValueError, match=r"must be \[B, K\], got shape \(3,\)"):
        score(torch.zeros(3))
    with pytest.raises(ValueError, match="at least two classes, got K=1"):
        score(torch.zeros(3, 1))
    with pytest.raises(TypeError, match="labels are not logits"):
        score(torch.zeros(3, 2, dtype=torch.long))


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        msp(LOGITS, temperature=0)
    with pytest.raises(ValueError, match="gamma must be between 0 and 1, got 1"):
        gen(LOGITS, gamma=1)
    with pytest.raises(ValueError, match=r"top .* at least 1, got 0"):
        gen(LOGITS, top=0)
