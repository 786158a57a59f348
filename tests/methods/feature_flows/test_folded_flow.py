"""A folded flow has the numbers and the gradient of its steps one after the other."""

import pytest
import torch
from torch import nn

from dracones.flows import AllInOne, ConvNet
from dracones.methods.feature_flows import folded_flow


def chain(channels, kernels=(3, 1, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)

    def conditioner(kernel):
        return lambda read, out: ConvNet(read, out, hidden=5, kernels=(kernel, kernel))

    steps = [AllInOne(channels, conditioner(kernel), clamp=1.7, generator=generator) for kernel in kernels]
    module = nn.ModuleList(steps).double()
    for step in steps:  # these two as exact as float64 has them, not as float32 had
        step.coupling.scale.slope.fill_(0.1)
        step.coupling.scale.limit.fill_(1.7)
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    return steps, list(module.parameters())


def maps(channels, count=5):
    return torch.randn(count, channels, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def one_by_one(steps, x):
    log_det = torch.zeros_like(x[:, 0])
    for step in steps:
        x, share = step.encode_map(x)
        log_det = log_det + share
    return x, log_det


@pytest.mark.parametrize("channels", [6, 7])
@pytest.mark.parametrize("images_at_once", [1, 2, 8])
def test_loss_and_gradient_are_those_of_the_steps(channels, images_at_once, monkeypatch):
    monkeypatch.setattr(folded_flow, "_VALUES_A_THREAD", images_at_once * channels * 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    steps, parameters = chain(channels)
    x = maps(channels)
    z, log_det = one_by_one(steps, x)
    expected = (0.5 * z.square().sum(1) - log_det).mean() / channels
    gradients = torch.autograd.grad(expected, parameters)
    value = folded_flow.loss(folded_flow.fold(steps), x, torch.float64)
    torch.testing.assert_close(value.detach(), expected.detach(), rtol=1e-12, atol=1e-12)
    for got, wanted in zip(torch.autograd.grad(3 * value, parameters), gradients, strict=True):
        torch.testing.assert_close(got, 3 * wanted, rtol=1e-9, atol=1e-12)


def test_gradient_is_that_of_finite_differences():
    steps, parameters = chain(4, kernels=(3, 1))
    x = maps(4, count=2)

    def run(*_):
        return folded_flow.loss(folded_flow.fold(steps), x, torch.float64)

    assert torch.autograd.gradcheck(run, parameters, atol=1e-7)


def test_input_is_left_as_it_was():
    steps, _ = chain(6)
    x = maps(6)
    before = x.clone()
    folded_flow.loss(folded_flow.fold(steps), x, torch.float64).backward()
    assert torch.equal(x, before)


@pytest.mark.parametrize("maps_shape", [(3, 4, 6, 5), (2, 9, 2, 2)])
def test_bfloat16_convolutions_leave_sums_in_float32(maps_shape):
    steps, parameters = chain(maps_shape[1])
    module = nn.ModuleList(steps).float()
    x = torch.randn(maps_shape, generator=torch.Generator().manual_seed(2))
    exact = folded_flow.loss(folded_flow.fold(steps), x, torch.float32)
    coarse = folded_flow.loss(folded_flow.fold(steps), x, torch.bfloat16)
    assert exact.dtype == coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(coarse, exact, rtol=0.02, atol=0.02)
    wanted, got = (torch.cat([g.flatten() for g in torch.autograd.grad(v, list(module.parameters()))])
                   for v in (exact, coarse))  # fmt: skip
    assert torch.nn.functional.cosine_similarity(wanted, got, dim=0) > 0.999
    assert len(parameters) == len(list(module.parameters()))


def test_other_steps_are_refused():
    def network(read, out):
        return ConvNet(read, out, hidden=5)

    with pytest.raises(TypeError, match="expected conditioners that are a ConvNet of two convolutions"):
        folded_flow.fold([AllInOne(4, network, clamp=1.0)])
    with pytest.raises(TypeError, match="expected steps that mix by permutation; got Rotation"):
        folded_flow.fold([AllInOne(4, network, clamp=1.0, mixing="rotation")])


def test_the_private_question_to_torch_is_still_answered():
    """Whether bfloat16 has matrix units decides how maps are transposed."""
    assert torch.ops.mkldnn._is_mkldnn_bf16_supported() in (True, False)


@pytest.mark.parametrize(("threads", "sizes"), [(1, [2, 2, 2, 2]), (4, [8])])
def test_parts_grow_with_the_threads_that_share_them(threads, sizes, monkeypatch):
    monkeypatch.setattr(folded_flow, "_VALUES_A_THREAD", 2 * 6 * 12)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert [len(part) for part in folded_flow._parts(torch.zeros(8, 6, 3, 4))] == sizes
