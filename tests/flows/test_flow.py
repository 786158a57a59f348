"""A density: its parts, its samples, its picture per pixel."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from dracones.flows import (
    MLP,
    ActNorm,
    AffineCoupling,
    Chain,
    ConvNet,
    Flow,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Permutation,
    ResNet,
    Squeeze,
    StandardNormal,
    channels,
)


def glow(seed=0):
    torch.manual_seed(seed)
    small = partial(ConvNet, hidden=5)

    def level(count):
        step = [ActNorm(count), InvertibleConv1x1(count), AffineCoupling(channels(count), small)]
        return Chain(Squeeze(), *step)

    flow = Flow(Chain(Logit(), MultiScale(level(8), level(16))), shape=(2, 8, 4))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return flow.double().eval()


def images(count, seed=0):
    return torch.rand(count, 2, 8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_density_integrates_to_one():
    torch.manual_seed(0)
    flow = (
        Flow(Chain(AffineCoupling(channels(2), partial(MLP, hidden=8)), Permutation([1, 0]), ActNorm(2)))
        .double()
        .eval()
    )
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    axis = torch.linspace(-12, 12, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(total.item() - 1) < 1e-3


def test_standard_normal_against_torch():
    z = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    torch.testing.assert_close(StandardNormal().elementwise_log_prob(z), expected)
    torch.testing.assert_close(StandardNormal().log_prob(z), expected.sum((1, 2, 3)))
    assert StandardNormal().log_prob(torch.zeros(0, 5)).shape == (0,)


def test_terms_add_up():
    flow, x = glow(), images(5)
    terms = flow.terms(x)
    torch.testing.assert_close(terms.log_prob, flow.log_prob(x))
    torch.testing.assert_close(terms.log_prob, terms.log_prob_latent + terms.log_det)
    assert terms.level_log_prob_latent.shape == terms.level_log_det.shape == (5, 2)
    torch.testing.assert_close(terms.level_log_prob_latent.sum(1), terms.log_prob_latent)
    torch.testing.assert_close(terms.level_log_det.sum(1), terms.log_det)
    latents, log_det = flow.encode(x)
    torch.testing.assert_close(terms.log_det, log_det)
    for a, b in zip(terms.latents, latents, strict=True):
        assert torch.equal(a, b)


def test_all_latents_come_back_exactly():
    """Factored-out latents are used on decode, not drawn anew."""
    flow, x = glow(), images(3)
    latents, _ = flow.encode(x)
    assert [tuple(z.shape) for z in latents] == [(3, 4, 4, 2), (3, 16, 2, 1)]
    torch.testing.assert_close(flow.decode(latents), x, rtol=1e-9, atol=1e-9)
    changed = (latents[0] + 1, latents[1])
    assert (flow.decode(changed) - x).abs().max() > 1e-2
    assert torch.equal(flow.decode(changed), flow.decode(changed))
    with pytest.raises(ValueError, match="expected 2 latents, one per level; got 1"):
        flow.decode(latents[:1])


def test_log_prob_per_pixel_sums_to_log_prob():
    flow, x = glow(), images(3)
    per_pixel = flow.log_prob_map(x)
    assert per_pixel.shape == (3, 8, 4)
    torch.testing.assert_close(per_pixel.sum((1, 2)), flow.log_prob(x))


def test_log_prob_map_of_vectors_is_log_prob():
    flow, x = Flow(ActNorm(3)).eval(), torch.randn(4, 3)
    assert torch.equal(flow.log_prob_map(x), flow.log_prob(x))


def test_log_prob_map_of_a_flow_at_any_size():
    """Per position: changing one pixel changes the map around it alone (a 3×3 conditioner's reach)."""
    torch.manual_seed(0)
    flow = Flow(AffineCoupling(channels(4), partial(ConvNet, hidden=5))).double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    for size in ((9, 9), (5, 13)):
        x = torch.randn(1, 4, *size, dtype=torch.float64)
        touched = x.clone()
        touched[0, :, 0, 0] += 1
        changed = (flow.log_prob_map(x) - flow.log_prob_map(touched))[0].abs() > 1e-12
        assert changed[0, 0]
        assert not changed[3:].any()
        assert not changed[:, 3:].any()


def test_samples_come_from_the_generator_and_the_density():
    flow = glow()
    draw = [flow.sample(4, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert draw[0].shape == (4, 2, 8, 4)
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    state = torch.get_rng_state()
    flow.sample(1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    norm = ActNorm(2).eval()
    with torch.no_grad():
        norm.shift.copy_(torch.tensor([-3.0, 5.0]))
        norm.log_scale.copy_(torch.tensor([0.5, -0.5]))
    many = Flow(norm, shape=(2,)).sample(20_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(many.mean(0), torch.tensor([3.0, -5.0]), rtol=0.02, atol=0.02)
    torch.testing.assert_close(many.std(0), torch.tensor([-0.5, 0.5]).exp(), rtol=0.03, atol=0.03)
    cold = Flow(norm, shape=(2,)).sample(100, generator=torch.Generator().manual_seed(0), temperature=0.0)
    torch.testing.assert_close(cold, torch.tensor([[3.0, -5.0]]).expand(100, 2))


def test_sample_needs_a_shape():
    with pytest.raises(ValueError, match=r"the shape of one sample is not known"):
        Flow(ActNorm(2)).sample(1)
    assert Flow(ActNorm(2)).sample(3, shape=(2, 5, 6)).shape == (3, 2, 5, 6)
    assert Flow(ActNorm(2), shape=(2,)).sample(0).shape == (0, 2)


def test_context_that_nobody_takes_is_refused():
    with pytest.raises(ValueError, match=r"got a context of shape \[2, 3\], but no layer takes one"):
        Flow(ActNorm(2)).log_prob(torch.zeros(2, 2), torch.zeros(2, 3))


def test_conditional_sampling_and_scoring():
    torch.manual_seed(0)
    flow = Flow(Chain(AffineCoupling(channels(4), MLP, context_features=3)), shape=(4,))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    context = torch.randn(5, 3)
    x = flow.sample(5, generator=torch.Generator().manual_seed(0), context=context)
    assert flow.log_prob(x, context).shape == (5,)
    assert flow.trace(x, context)[0].s.shape == (5, 4)


def test_errors_name_level_and_layer():
    flow = glow()
    with pytest.raises(ValueError, match=r"layer 1 \(MultiScale\).*level 0, layer 1 \(ActNorm\): .*\[B, 8, ...\]; got"):
        Flow(Chain(Logit(), MultiScale(Chain(Squeeze(), ActNorm(8)), Squeeze()))).log_prob(torch.rand(1, 3, 8, 4))
    with pytest.raises(ValueError, match=r"level 1, layer 0 \(Squeeze\): .*divisible by 2; got \[3, 2\]"):
        flow.log_prob(images(1)[:, :, :6])
    with pytest.raises(ValueError, match=r"layer 0 \(ActNorm\): ActNorm.decode: expected a shape \[B, 3, ...\]"):
        Chain(ActNorm(3), ActNorm(2)).decode(torch.zeros(1, 2))


def test_the_first_non_finite_place_is_named():
    flow, x = glow(), images(2)
    assert flow.first_non_finite(x) is None
    assert flow.first_non_finite(torch.full_like(x, torch.nan)) == "input"
    coupling = flow.bijection[1].levels[1][3]
    coupling.scale.limit.grad = torch.tensor([0.0, torch.inf] + [0.0] * 6).double()
    assert flow.first_non_finite(x) == "gradient of bijection.layers.1.levels.1.layers.3.scale.limit"
    with torch.no_grad():
        coupling.conditioner.network[-1].bias.fill_(1e200)
        coupling.conditioner.network[-1].bias[1] = 1e308
        coupling.conditioner.network[-1].weight[:] = 1e308
    assert flow.first_non_finite(x).startswith("1/level1/3 (AffineCoupling): output")
    with torch.no_grad():
        flow.bijection[1].levels[0][1].shift[0] = torch.nan
    assert flow.first_non_finite(x) == "parameter bijection.layers.1.levels.0.layers.1.shift"


def test_looking_for_non_finite_values_leaves_no_trace():
    torch.manual_seed(0)
    flow = Flow(AffineCoupling(channels(4), partial(ResNet, hidden=4, blocks=1))).train()
    before = {name: buffer.clone() for name, buffer in flow.named_buffers()}
    assert flow.first_non_finite(torch.randn(3, 4, 5, 5)) is None
    assert flow.training
    for name, buffer in flow.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_a_flow_is_a_module_that_wrappers_can_call():
    flow, x = glow(), images(2)
    assert torch.equal(nn.Sequential(flow)(x), flow.log_prob(x))


def test_bits_of_a_gaussian():
    """The log-likelihood is in nats of the very x that came in: scaling x by 1/k adds D log k."""
    norm = ActNorm(3).eval()
    with torch.no_grad():
        norm.log_scale.fill_(math.log(7.0))
    x = torch.randn(2, 3, 2, 2) / 7
    expected = torch.distributions.Normal(0.0, 1 / 7).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(Flow(norm).log_prob(x), expected)


def test_traces_place_couplings_of_every_level_in_the_image():
    flow, x = glow(), images(2)
    steps = flow.trace(x)
    names = [s.name for s in steps]
    assert names[0] == "0"
    assert names[1:5] == ["1/level0/0", "1/level0/1", "1/level0/2", "1/level0/3"]
    assert [s.level for s in steps] == [0] * 5 + [1] * 4
    deep = steps[-1]
    assert deep.t.shape == (2, 16, 2, 1)
    t = deep.in_image("t")
    assert t.shape == x.shape
    assert int((t != 0).sum()) == int((deep.t != 0).sum())
    with pytest.raises(ValueError, match=r"step '1/level0/0' \(Squeeze\) has no 's'"):
        steps[1].in_image("s")
    with pytest.raises(ValueError, match=r"has no 'log_det'"):
        steps[1].in_image("log_det")


class TestMixedPrecision:
    """Under autocast the conditioners alone run in bfloat16."""

    def flow(self, memory="standard"):
        torch.manual_seed(0)
        net = partial(ConvNet, hidden=16)
        steps = [m for _ in range(3) for m in (ActNorm(4), InvertibleConv1x1(4), AffineCoupling(channels(4), net))]
        flow = Flow(Chain(*steps, InvertibleConv1x1(4, lu=False), Permutation([1, 0, 3, 2]), memory=memory)).eval()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return flow

    def test_latents_stay_precise_and_decode_exactly(self):
        flow, x = self.flow(), torch.randn(4, 4, 6, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (z,), log_det = flow.encode(x)
            assert z.dtype == log_det.dtype == torch.float32
            torch.testing.assert_close(flow.decode((z,)), x, rtol=1e-4, atol=1e-4)
            low = flow.log_prob(x)
        torch.testing.assert_close(low, flow.log_prob(x), rtol=2e-2, atol=0.5)
        assert not torch.equal(low, flow.log_prob(x))

    def test_without_couplings_nothing_changes(self):
        flow, x = Flow(Chain(ActNorm(4), InvertibleConv1x1(4))).eval(), torch.randn(4, 4, 6, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = flow.log_prob(x)
            single = flow.bijection[1].encode(x)[0]
        assert torch.equal(low, flow.log_prob(x))
        assert torch.equal(single, flow.bijection[1].encode(x)[0])

    def test_constant_memory_gives_the_same_gradients(self):
        gradients = []
        for memory in ("standard", "constant"):
            flow, x = self.flow(memory), torch.randn(4, 4, 6, 6, generator=torch.Generator().manual_seed(0))
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = -flow.log_prob(x).mean()
            gradients.append(torch.autograd.grad(loss, list(flow.parameters())))
        for expected, got in zip(*gradients, strict=True):
            assert torch.linalg.norm(got - expected) <= 1e-3 * torch.linalg.norm(expected) + 1e-6


def test_nan_has_no_likelihood():
    flow = Flow(ActNorm(3), shape=(3,)).eval()
    x = torch.zeros(5, 3)
    x[3, 1] = x[4, 0] = torch.nan
    with pytest.raises(ValueError, match="2 of 5 samples hold NaN, the first of them sample 3"):
        flow.log_prob(x)
    assert torch.isneginf(flow.log_prob(torch.full((1, 3), torch.inf))).all()
    torch.export.export(flow, (x,))  # a graph asks nothing of values
