"""Training a chain in memory that does not grow with its depth."""

import copy
import weakref
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dracones.flows import (
    MLP,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    ConvNet,
    Flow,
    InvertibleConv1x1,
    MultiScale,
    Permutation,
    ResNet,
    Squeeze,
    channels,
    checkerboard,
)


class PeakMemory(TorchDispatchMode):
    """Largest number of bytes of tensors alive at one time, backward's included, without what was there before."""

    def __init__(self):
        super().__init__()
        self.alive, self.current, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    self.current += storage.nbytes()
                    self.peak = max(self.peak, self.current)
                    weakref.finalize(storage, self._freed, storage._cdata)
        return result

    def _freed(self, key):
        self.current -= self.alive.pop(key, 0)


def glow(depth, memory, channels_=4, conditioner=None, seed=0, noise=0.05):
    torch.manual_seed(seed)
    conditioner = partial(ConvNet, hidden=16) if conditioner is None else conditioner
    steps = []
    for _ in range(depth):
        mix = InvertibleConv1x1(channels_)
        steps += [ActNorm(channels_), mix, AffineCoupling(channels(channels_), conditioner)]
    chain = Chain(*steps, memory=memory)
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter += noise * torch.randn_like(parameter)
    return chain


def pair(build):
    """The same flow with standard and with constant memory."""
    standard, constant = build("standard"), build("constant")
    constant.load_state_dict(standard.state_dict())
    return Flow(standard).eval(), Flow(constant).eval()


def gradients(flow, x, context=None):
    x = x.clone().requires_grad_()
    inputs = [x, *([context] if context is not None else []), *(p for p in flow.parameters() if p.requires_grad)]
    return torch.autograd.grad(flow.log_prob(x, context).square().mean(), inputs)


def assert_same_gradients(standard, constant, x, context=None, relative=1e-4):
    for expected, got in zip(gradients(standard, x, context), gradients(constant, x, context), strict=True):
        assert torch.linalg.norm(got - expected) <= relative * torch.linalg.norm(expected) + 1e-12


def test_gradients_at_depth_64_in_single_precision():
    standard, constant = pair(lambda memory: glow(64, memory))
    x = torch.randn(4, 4, 6, 6)
    assert torch.equal(standard.log_prob(x), constant.log_prob(x))
    assert_same_gradients(standard, constant, x)


def test_gradients_are_exact_in_double_precision():
    standard, constant = pair(lambda memory: glow(16, memory).double())
    assert_same_gradients(standard, constant, torch.randn(3, 4, 5, 5).double(), relative=1e-11)


@pytest.mark.parametrize(
    ("conditioner", "images"),
    [(None, 16), (partial(ConvNet, hidden=16, kernels=(3, 3, 3)), 64)],
    ids=["in-cache", "whole-batch"],
)
def test_peak_memory_of_a_training_step_barely_grows_with_depth(conditioner, images):
    def peak(depth, memory):
        flow, x = Flow(glow(depth, memory, conditioner=conditioner, noise=0.01)).eval(), torch.randn(images, 4, 12, 12)
        flow.log_prob(x[:1]).mean().backward()  # gradients exist before, so they do not count
        with PeakMemory() as measured:
            (-flow.log_prob(x).mean()).backward()
        return measured.peak

    assert peak(64, "constant") <= 1.5 * peak(8, "constant")
    assert peak(64, "standard") > 3 * peak(64, "constant")  # the measure sees what it should


@pytest.mark.parametrize("layer", [AffineCoupling, AdditiveCoupling])
def test_vectors_with_context(layer):
    def build(memory):
        torch.manual_seed(0)
        mlp = partial(MLP, hidden=16)
        layers = []
        for i in range(6):
            layers += [
                layer(channels(6, reverse=i % 2 == 1), mlp, context_features=3),
                Permutation.random(6),
                ActNorm(6),
            ]
        chain = Chain(*layers, memory=memory).double()
        with torch.no_grad():
            for parameter in chain.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return chain

    standard, constant = pair(build)
    context = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert_same_gradients(standard, constant, torch.randn(7, 6).double(), context, relative=1e-10)


def test_several_backward_passes_accumulate():
    standard, constant = pair(lambda memory: glow(3, memory).double())
    for flow in (standard, constant):
        for seed in range(3):
            x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            (-flow.log_prob(x).mean() / 3).backward()
    for expected, got in zip(standard.parameters(), constant.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-9, atol=1e-12)


def test_frozen_parameters_get_no_gradient():
    standard, constant = pair(lambda memory: glow(3, memory).double())
    for flow in (standard, constant):
        for parameter in flow.bijection[2].parameters():
            parameter.requires_grad_(False)
    assert_same_gradients(standard, constant, torch.randn(2, 4, 4, 4).double(), relative=1e-10)
    for parameter in [*standard.parameters(), *constant.parameters()]:
        parameter.requires_grad_(False)
    x = torch.randn(2, 4, 4, 4).double().requires_grad_()
    expected, got = (torch.autograd.grad(flow.log_prob(x).sum(), x)[0] for flow in (standard, constant))
    torch.testing.assert_close(got, expected)


def test_a_parameter_used_twice():
    def build(memory):
        step = glow(1, "standard", seed=3)[2]
        return Chain(step, Permutation.reversed(4), step, memory=memory).double()

    assert_same_gradients(*pair(build), torch.randn(3, 4, 4, 4).double(), relative=1e-10)


def test_batch_norm_in_conditioners_counts_each_batch_once():
    def build(memory):
        torch.manual_seed(0)
        net = partial(ResNet, hidden=4, blocks=1)
        masks = [checkerboard((2, 4, 4), reverse=i % 2 == 1) for i in range(4)]
        chain = Chain(*(AffineCoupling(mask, net) for mask in masks), memory=memory).double()
        with torch.no_grad():
            for parameter in chain.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return chain

    standard, constant = pair(build)
    standard.train(), constant.train()
    x = torch.randn(5, 2, 4, 4).double()
    assert_same_gradients(standard, constant, x, relative=1e-9)
    for (name, expected), got in zip(standard.named_buffers(), constant.buffers(), strict=True):
        torch.testing.assert_close(got.double(), expected.double(), msg=name)
    assert all(int(b) == 1 for n, b in constant.named_buffers() if n.endswith("num_batches_tracked"))


def test_actnorm_initialises_on_the_first_batch():
    chain = glow(2, "constant").train()
    Flow(chain).log_prob(torch.randn(8, 4, 4, 4) * 7 + 3).mean().backward()
    z, _ = chain[0].encode(torch.randn(8, 4, 4, 4) * 7 + 3)
    assert abs(z.mean()) < 0.3
    assert 0.7 < z.std() < 1.3


def test_levels_of_a_multi_scale_flow():
    def build(memory):
        levels = [glow(2, "standard", 4, seed=1), glow(2, "standard", 8, seed=2)]
        return MultiScale(*(Chain(Squeeze(), *level, memory=memory) for level in levels)).double()

    assert_same_gradients(*pair(build), torch.randn(3, 1, 8, 8).double(), relative=1e-10)


def test_training_reaches_the_same_weights():
    standard, constant = pair(lambda memory: glow(4, memory))
    for flow in (standard, constant):
        optimiser = torch.optim.SGD(flow.parameters(), lr=1e-3)
        for seed in range(5):
            x = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
            optimiser.zero_grad()
            (-flow.log_prob(x).mean()).backward()
            optimiser.step()
    for expected, got in zip(standard.parameters(), constant.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_nothing_is_recomputed_without_gradients():
    _, constant = pair(lambda memory: glow(2, memory))
    with torch.no_grad():
        assert not constant.log_prob(torch.randn(2, 4, 4, 4)).requires_grad


def test_layers_that_do_not_qualify_are_refused():
    dropout = Chain(AffineCoupling(channels(4), partial(MLP, dropout=0.5)), memory="constant")
    with pytest.raises(
        ValueError, match=r'layer 0 \(AffineCoupling\): Dropout cannot be recomputed.*memory="constant"'
    ):
        dropout.train().encode(torch.randn(2, 4))
    dropout.eval().encode(torch.randn(2, 4))
    with pytest.raises(ValueError, match="expected memory to be one of standard, constant; got 'tiny'"):
        Chain(memory="tiny")


def test_a_copy_trains_on_its_own():
    chain = glow(2, "constant")
    other = copy.deepcopy(chain)
    Flow(other).log_prob(torch.randn(2, 4, 4, 4)).mean().backward()
    assert all(p.grad is None for p in chain.parameters())


def test_inputs_lost_to_rounding_are_noticed():
    """Gradients computed from a wrong input would be wrong without a word."""
    shrink = ActNorm(2).eval()
    with torch.no_grad():
        shrink.log_scale.fill_(-12.0)
        shrink.shift.fill_(1.0)
    layers = [shrink, Permutation([1, 0])] * 4
    x = torch.randn(3, 2)
    Flow(Chain(*layers)).log_prob(x).sum().backward()
    with pytest.raises(ValueError, match=r'memory="constant".*off by .* of the largest value.*use memory="standard"'):
        Flow(Chain(*layers, memory="constant")).log_prob(x).sum().backward()


def test_second_derivatives_and_transforms():
    standard, constant = pair(lambda memory: glow(2, memory).double())
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    hessians = [
        torch.autograd.functional.hessian(lambda v, f=flow: f.log_prob(v).sum(), x) for flow in (standard, constant)
    ]
    assert hessians[0].abs().max() > 1
    torch.testing.assert_close(hessians[1], hessians[0])
    torch.testing.assert_close(torch.func.hessian(lambda v: constant.log_prob(v).sum())(x), hessians[0])
    by_parameters = []
    for flow in (standard, constant):
        (gradient,) = torch.autograd.grad(flow.log_prob(x).sum(), flow.bijection[1].lower, create_graph=True)
        by_parameters.append(torch.autograd.grad(gradient.square().sum(), list(flow.parameters()), allow_unused=True))
    for expected, got in zip(*by_parameters, strict=True):
        assert (expected is None) == (got is None)
        if expected is not None:
            torch.testing.assert_close(got, expected)
