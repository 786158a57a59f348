"""Shaping of features: the papers' algorithms on vectors small enough to do by hand, and against numpy."""

import math

import numpy as np
import pytest
import torch

from dracones.methods.guards import Ash, ClassifierOutputs, Dice, LinearHead, React, Scale

ash_b, ash_p, ash_s, dice_weight, react, scale = Ash.b, Ash.p, Ash.s, Dice.sparse, React.clip, Scale.scale

FEATURES = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0, 5.0]])


def test_ash_p_by_hand():
    assert ash_p(FEATURES, 0.6).tolist() == [[4, 0, 3, 0, 0], [0, 0, 0, 0, 5]]


def test_ash_b_spreads_the_sum_over_the_survivors():
    shaped = ash_b(FEATURES, 0.6)
    assert shaped[0].tolist() == [5, 0, 5, 0, 0]
    assert shaped[1].sum() == 5
    assert (shaped[1] > 0).sum() == 2


def test_ash_s_by_hand():
    factor = math.exp(10 / 7)
    torch.testing.assert_close(ash_s(FEATURES, 0.6)[0], factor * torch.tensor([4.0, 0, 3, 0, 0]))
    torch.testing.assert_close(ash_s(FEATURES, 0.6)[1], math.e * FEATURES[1])


def test_scale_by_hand():
    torch.testing.assert_close(scale(FEATURES, 0.6)[0], math.exp(10 / 7) * FEATURES[0])


def test_react_by_hand():
    assert react(FEATURES, 2.5)[0].tolist() == [2.5, 1, 2.5, 2, 0]


@pytest.mark.parametrize("shape", [ash_p, ash_b, ash_s, scale])
def test_dead_image_stays_finite(shape):
    assert torch.isfinite(shape(torch.zeros(1, 6), 0.9)).all()


@pytest.mark.parametrize("shape", [ash_p, ash_b, ash_s, scale])
def test_bad_percentile_and_maps_are_refused(shape):
    with pytest.raises(ValueError, match=r"percentile must be in \[0, 1\)"):
        shape(FEATURES, 90)
    with pytest.raises(ValueError, match="pool feature maps first"):
        shape(torch.zeros(2, 3, 4, 4), 0.5)


def test_nothing_pruned_is_the_identity_up_to_the_factor():
    torch.testing.assert_close(ash_p(FEATURES, 0.0), FEATURES)
    torch.testing.assert_close(ash_s(FEATURES, 0.0), math.e * FEATURES)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_dice_threshold_is_numpys_quantile(sparsity):
    rng = np.random.default_rng(0)
    weight, mean = rng.normal(size=(7, 13)).astype(np.float32), rng.random(13).astype(np.float32)
    contribution = weight * mean
    expected = np.where(contribution > np.quantile(contribution, sparsity), weight, 0)
    got = dice_weight(torch.from_numpy(weight), torch.from_numpy(mean), sparsity)
    np.testing.assert_array_equal(got, expected)


def test_dice_refuses_a_percentage():
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got 90"):
        dice_weight(torch.zeros(2, 2), torch.zeros(2), 90)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    head = LinearHead(torch.randn(3, 8, generator=generator), torch.randn(3, generator=generator))
    features = torch.rand(40, 8, generator=generator)
    return ClassifierOutputs(head(features), features), head


def reference_energy(features, head):
    return -torch.logsumexp(features @ head.weight.T + head.bias, 1)


@pytest.mark.parametrize(
    ("score", "shape"),
    [
        (Ash(percentile=0.5), lambda z: ash_s(z, 0.5)),
        (Ash(percentile=0.5, variant="b"), lambda z: ash_b(z, 0.5)),
        (Ash(percentile=0.5, variant="p"), lambda z: ash_p(z, 0.5)),
        (Scale(percentile=0.5), lambda z: scale(z, 0.5)),
        (React(percentile=0.75), lambda z: z.clamp(max=float(np.quantile(z.numpy(), 0.75)))),
        (React(percentile=1.0), lambda z: z),
    ],
)
def test_energy_after_shaping(case, score, shape):
    outputs, head = case
    got = score.fit_outputs(outputs.logits, outputs.features, head=head).score_outputs(outputs.logits, outputs.features)
    torch.testing.assert_close(got, reference_energy(shape(outputs.features), head))


def test_dice_is_the_energy_of_the_sparse_layer(case):
    outputs, head = case
    got = Dice(sparsity=0.7).fit_outputs(outputs.logits, outputs.features, head=head)
    got = got.score_outputs(outputs.logits, outputs.features)
    sparse = dice_weight(head.weight, outputs.features.mean(0), 0.7)
    torch.testing.assert_close(got, reference_energy(outputs.features, LinearHead(sparse, head.bias)))


def test_head_that_does_not_give_the_logits_is_refused(case):
    outputs, head = case
    with pytest.raises(ValueError, match="does not give the logits"):
        Scale().fit_outputs(outputs.logits, outputs.features, head=LinearHead(head.weight, head.bias + 1))
    with pytest.raises(ValueError, match="features have 8 dimensions, the last layer reads 4"):
        Scale().fit_outputs(outputs.logits, outputs.features, head=LinearHead(head.weight[:, :4], head.bias))
    with pytest.raises(ValueError, match="needs the classifier's last linear layer"):
        Scale().fit_outputs(outputs.logits, outputs.features)


def test_unfitted_and_featureless_are_refused(case):
    outputs, head = case
    with pytest.raises(RuntimeError, match="scale must be fitted"):
        Scale().score_outputs(outputs.logits, outputs.features)
    score = Scale().fit_outputs(outputs.logits, outputs.features, head=head)
    with pytest.raises(ValueError, match="reads penultimate features, got logits alone"):
        score.score_outputs(outputs.logits)


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"option 'variant'.*'s', 'b' or 'p'"):
        Ash(variant="x")
