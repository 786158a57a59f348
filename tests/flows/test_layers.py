"""Single layers: what is particular to each, and the traps that others fell into."""

import math
from functools import partial

import pytest
import torch
from safetensors.torch import load, save

from dracones.flows import (
    ActNorm,
    AffineCoupling,
    Chain,
    ConvNet,
    Flow,
    Inverse,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Permutation,
    Squeeze,
    channels,
)


class TestActNorm:
    def batch(self, seed=0):
        return torch.randn(32, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * torch.tensor(
            [1.0, 5.0, 0.1]
        ).view(3, 1, 1) + torch.tensor([0.0, -7.0, 2.0]).view(3, 1, 1)

    def test_first_batch_leaves_standardised(self):
        z, _ = ActNorm(3).train().encode(self.batch())
        torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)

    def test_only_the_first_batch_counts(self):
        norm = ActNorm(3).train()
        norm.encode(self.batch())
        before = norm.shift.clone()
        norm.encode(self.batch(1) + 100)
        assert torch.equal(norm.shift, before)

    def test_is_never_initialised_in_eval_mode(self):
        norm = ActNorm(3).eval()
        x = self.batch()
        assert torch.equal(norm.encode(x)[0], x)
        assert not norm.initialized
        norm.train().encode(x)
        assert norm.initialized

    @pytest.mark.parametrize("value", [0.0, 0.3, -1e6])
    def test_a_constant_channel_stays_finite(self, value):
        norm, x = ActNorm(3).train(), self.batch()
        x[:, 1] = value
        z, log_det = norm.encode(x)
        assert torch.isfinite(z).all()
        assert torch.isfinite(log_det).all()
        assert norm.log_scale[1] == 0
        torch.testing.assert_close(norm.decode(z)[0], x, rtol=1e-4, atol=1e-4)

    def test_a_single_vector_initialises(self):
        z, log_det = ActNorm(4).train().encode(torch.tensor([[1.0, -2.0, 3.0, 0.0]]))
        assert torch.equal(z, torch.zeros(1, 4))
        assert torch.equal(log_det, torch.zeros(1))

    def test_an_empty_batch_does_not_initialise(self):
        norm = ActNorm(3).train()
        norm.encode(torch.zeros(0, 3, 2, 2))
        assert not norm.initialized

    def test_a_non_finite_batch_is_refused(self):
        x = self.batch()
        x[3, 2, 1, 1] = torch.inf
        with pytest.raises(ValueError, match=r"layer 0 \(ActNorm\): .*initialise it holds a non-finite value"):
            Chain(ActNorm(3)).train().encode(x)

    def test_the_flag_survives_saving(self):
        norm, loaded = ActNorm(3).train(), ActNorm(3)
        norm.encode(self.batch())
        loaded.load_state_dict(load(save(norm.state_dict())))
        loaded.train().encode(self.batch(1) * 9)
        assert torch.equal(loaded.shift, norm.shift)
        assert "initialized=True" in repr(loaded)

    def test_a_flow_initialises_all_of_its_norms_at_once(self):
        flow = Flow(Chain(ActNorm(3), InvertibleConv1x1(3), ActNorm(3))).eval()
        flow.initialize(self.batch())
        assert not flow.training
        assert all(bool(b) for n, b in flow.named_buffers() if n.endswith("initialized"))
        z = flow.encode(self.batch())[0][0]
        torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


class TestInvertibleConv1x1:
    @pytest.mark.parametrize("lu", [True, False])
    def test_starts_as_a_rotation(self, lu):
        weight, log_det = InvertibleConv1x1(6, lu=lu, generator=torch.Generator().manual_seed(3)).matrix()
        torch.testing.assert_close(weight @ weight.T, torch.eye(6), atol=1e-5, rtol=0)
        assert abs(log_det.item()) < 1e-5

    def test_both_forms_start_from_the_same_rotation(self):
        lu, plain = (
            InvertibleConv1x1(5, lu=v, generator=torch.Generator().manual_seed(1)).matrix()[0] for v in (True, False)
        )
        torch.testing.assert_close(lu, plain, atol=1e-6, rtol=1e-6)

    def test_log_det_counts_every_position(self):
        mix = InvertibleConv1x1(3, lu=False)
        with torch.no_grad():
            mix.weight.mul_(2.0)
        assert math.isclose(mix.encode(torch.zeros(1, 3, 4, 5))[1].item(), 20 * 3 * math.log(2), rel_tol=1e-5)
        assert math.isclose(mix.encode(torch.zeros(1, 3))[1].item(), 3 * math.log(2), rel_tol=1e-5)

    def test_signs_and_order_are_state(self):
        saved, other = (InvertibleConv1x1(6, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
        other.load_state_dict(saved.state_dict())
        assert torch.equal(other.matrix()[0], saved.matrix()[0])


@pytest.mark.parametrize("order", [[0, 0, 1], [1, 2, 3], [[0, 1]]])
def test_permutation_refuses_what_is_none(order):
    with pytest.raises(ValueError, match=r"Permutation: expected each of 0, \.\.\., \d once"):
        Permutation(order)


def test_random_permutations_follow_their_generator():
    first, same, other = (Permutation.random(50, torch.Generator().manual_seed(s)).index for s in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_loaded_permutation_takes_effect():
    saved, other = Permutation([2, 0, 1]), Permutation([0, 1, 2])
    other.load_state_dict(saved.state_dict())
    x = torch.tensor([[5.0, 6.0, 7.0]])
    assert other.encode(x)[0].tolist() == [[7.0, 5.0, 6.0]]
    assert torch.equal(other.decode(other.encode(x)[0])[0], x)


def test_squeeze_is_pixel_unshuffle():
    x = torch.randn(2, 3, 6, 9)
    assert torch.equal(Squeeze(3).encode(x)[0], torch.nn.functional.pixel_unshuffle(x, 3))
    with pytest.raises(ValueError, match=r"height and width divisible by 2; got \[3, 4\]"):
        Squeeze().encode(torch.zeros(1, 1, 3, 4))
    with pytest.raises(ValueError, match=r"channels divisible by 4; got 6"):
        Squeeze().decode(torch.zeros(1, 6, 3, 4))
    with pytest.raises(ValueError, match="factor of at least 1; got 0"):
        Squeeze(0)


class TestLogit:
    def test_the_papers_formula(self):
        """Kirichenko et al. 2020: z = logit(((2x - 1) 0.9 + 1) / 2), log-det Σ softplus(z) + softplus(-z) + log 0.9."""
        x = torch.rand(2, 5, dtype=torch.float64)
        z, log_det = Logit().double().encode(x)
        torch.testing.assert_close(z, torch.logit(((2 * x - 1) * 0.9 + 1) / 2), rtol=1e-6, atol=1e-6)
        softplus = torch.nn.functional.softplus
        expected = (softplus(z) + softplus(-z)).sum(1) + 5 * math.log(0.9)
        torch.testing.assert_close(log_det, expected, rtol=1e-6, atol=1e-6)

    def test_black_and_white_are_finite(self):
        z, log_det = Logit().encode(torch.tensor([[0.0, 1.0]]))
        assert torch.isfinite(z).all()
        assert torch.isfinite(log_det).all()
        assert torch.allclose(Logit().decode(z)[0], torch.tensor([[0.0, 1.0]]), atol=1e-6)

    def test_margins_outside_are_refused(self):
        for margin in (-0.1, 0.5):
            with pytest.raises(ValueError, match=r"expected a margin in \[0, 0.5\)"):
                Logit(margin)


def test_log_dets_of_inverse_have_their_sign():
    """A log-det that cancels in encode + decode can be wrong all the same: the inverse's has to be the negative."""
    norm = ActNorm(2).eval()
    with torch.no_grad():
        norm.log_scale.fill_(1.0)
    x = torch.zeros(1, 2)
    assert norm.encode(x)[1].item() == norm.decode(x)[1].item() == 2
    assert Inverse(norm).encode(x)[1].item() == Inverse(norm).decode(x)[1].item() == -2


def test_multi_scale_refuses_what_cannot_be_split():
    with pytest.raises(ValueError, match="expected at least one level; got none"):
        MultiScale()
    with pytest.raises(ValueError, match=r"one number of kept channels per level but the last, 1; got 2"):
        MultiScale(Squeeze(), Squeeze(), keep=(1, 1))
    with pytest.raises(ValueError, match=r"level 0 leaves 4 channels and 4 of them should go on"):
        MultiScale(Squeeze(), Squeeze(), keep=(4,)).encode(torch.zeros(1, 1, 4, 4))


def test_a_chain_is_a_sequence():
    layers = [ActNorm(2), Permutation([1, 0])]
    chain = Chain(*layers)
    assert len(chain) == 2
    assert list(chain) == layers
    assert chain[-1] is layers[1]


def test_a_chain_is_its_layers_one_after_another():
    torch.manual_seed(0)
    chain = Chain(ActNorm(4), InvertibleConv1x1(4), ActNorm(4), InvertibleConv1x1(4, lu=False)).double().eval()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64)
    z, total = x, torch.zeros(3, dtype=torch.float64)
    for layer in chain:
        z, log_det = layer.encode(z)
        total = total + log_det
    together, log_det = chain.encode(x)
    torch.testing.assert_close(together, z)
    torch.testing.assert_close(log_det, total)


def test_log_prob_compiles_to_one_graph():
    flow = Flow(
        Chain(Squeeze(), ActNorm(4), InvertibleConv1x1(4), AffineCoupling(channels(4), partial(ConvNet, hidden=40)))
    )
    x = torch.rand(2, 1, 4, 4)
    flow.initialize(x)
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), flow.log_prob(x))
