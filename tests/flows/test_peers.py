"""The same weights in an independent library give the same numbers."""

import FrEIA.framework
import FrEIA.modules
import pytest
import torch
import zuko
from torch import nn

from dracones.flows import (
    MLP,
    ActNorm,
    AffineCoupling,
    Chain,
    ConvNet,
    Flow,
    InvertibleConv1x1,
    MultiScale,
    Squeeze,
    TanhScale,
)


def convolutions(in_channels, out_channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, out_channels, 3, padding=1),
    )


def freia_glow(shape, steps):
    """FrEIA's flow with every parameter away from its start, in double precision."""
    torch.manual_seed(0)
    inn = FrEIA.framework.SequenceINN(*shape)
    for _ in range(steps):
        inn.append(FrEIA.modules.AllInOneBlock, subnet_constructor=convolutions, permute_soft=True, affine_clamping=1.5)
    with torch.no_grad():
        for parameter in inn.parameters():
            if parameter.requires_grad:  # its rotation is a parameter too
                parameter += 0.3 * torch.randn_like(parameter)
    return inn.double()


def from_freia(inn, count):
    """The same flow here: coupling, then scale and offset, then rotation, per block."""
    layers = []
    for block in inn.module_list:
        passive = block.splits[0]
        reads = torch.arange(count) < passive
        network = ConvNet(passive, 2 * (count - passive), hidden=8).double()
        for own, theirs in zip(network.network, block.subnet, strict=True):
            if isinstance(own, nn.Conv2d):
                own.load_state_dict(theirs.state_dict())
        with torch.no_grad():  # FrEIA divides the whole output by ten: log-scale (see slope) and shift
            network.network[-1].weight[count - passive :] *= 0.1
            network.network[-1].bias[count - passive :] *= 0.1
        scale = TanhScale(count - passive, limit=1.5, slope=0.1, learnable=False)
        coupling = AffineCoupling(reads, network, scale=scale, shift_first=False)
        norm, mix = ActNorm(count), InvertibleConv1x1(count, lu=False)
        with torch.no_grad():
            gain = block.global_scale_activation(block.global_scale).flatten()
            norm.log_scale.copy_(gain.log())
            norm.shift.copy_(block.global_offset.flatten() / gain)
            mix.weight.copy_(block.w_perm[:, :, 0, 0])
        layers += [coupling, norm, mix]
    return Chain(*layers).double().eval()


@pytest.mark.parametrize("shape", [(4, 6, 5), (5, 3, 3)])
def test_glow_steps_of_freia(shape):
    inn = freia_glow(shape, steps=3)
    chain = from_freia(inn, shape[0])
    x = torch.randn(4, *shape, dtype=torch.float64)
    expected, expected_log_det = inn(x)
    z, log_det = chain.encode(x)
    # Constants (slope 0.1) and FrEIA's rotation were rounded to single precision before the conversion to double.
    torch.testing.assert_close(z, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det, expected_log_det, rtol=1e-6, atol=1e-5)
    log_prob = torch.distributions.Normal(0.0, 1.0).log_prob(expected).sum((1, 2, 3)) + expected_log_det
    torch.testing.assert_close(Flow(chain).log_prob(x), log_prob, rtol=1e-6, atol=1e-5)


def test_gradients_of_freias_steps():
    inn = freia_glow((4, 5, 5), steps=2)
    chain = from_freia(inn, 4)
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    z, log_det = inn(x)
    (0.5 * z.square().sum() - log_det.sum()).backward()
    (-Flow(chain).log_prob(x).sum()).backward()
    theirs = inn.module_list[0].subnet
    own = chain[0].conditioner.network
    for index in (0, 2):
        torch.testing.assert_close(own[index].weight.grad, theirs[index].weight.grad, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(own[index].bias.grad, theirs[index].bias.grad, rtol=1e-6, atol=1e-6)


def test_actnorm_starts_from_data_as_freias_does():
    x = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double() * 4 - 2
    theirs = FrEIA.modules.ActNorm([(3, 4, 4)]).double()
    (expected,), expected_log_det = theirs([x])
    z, log_det = ActNorm(3).double().train().encode(x)
    torch.testing.assert_close(z, expected, rtol=1e-2, atol=1e-2)  # theirs takes the unbiased deviation
    torch.testing.assert_close(log_det, torch.as_tensor(expected_log_det).expand(16).double(), rtol=1e-2, atol=1e-1)


def test_coupling_and_density_of_zuko():
    torch.manual_seed(0)
    mask = torch.tensor([True, False, True, True, False])
    coupling = AffineCoupling(mask, MLP(3, 4, hidden=8), shift_first=False).double()
    with torch.no_grad():
        for parameter in coupling.parameters():
            parameter += 0.3 * torch.randn_like(parameter)

    def meta(read):
        raw, shift = coupling.conditioner(read).chunk(2, -1)
        log_scale = coupling.scale.limit * torch.tanh(raw)
        affine = torch.distributions.AffineTransform(shift, log_scale.exp())
        return torch.distributions.transforms.IndependentTransform(zuko.transforms.ComposedTransform(affine), 1)

    transform = zuko.transforms.CouplingTransform(meta, mask)
    normal = zuko.distributions.DiagNormal(torch.zeros(5).double(), torch.ones(5).double())
    x = torch.randn(6, 5, dtype=torch.float64)
    torch.testing.assert_close(coupling.encode(x)[0], transform(x))
    theirs = zuko.distributions.NormalizingFlow(transform, normal)
    torch.testing.assert_close(Flow(coupling).log_prob(x), theirs.log_prob(x))


def test_lu_mixing_of_zuko():
    torch.manual_seed(0)
    mix = InvertibleConv1x1(5).double()
    with torch.no_grad():
        for parameter in mix.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    weight, log_det = mix.matrix()
    _, lower, upper = torch.linalg.lu(weight)
    diagonal = upper.diagonal()
    packed = (lower * diagonal).tril() + (upper / diagonal[:, None]).triu(
        1
    )  # zuko's L has the diagonal, its U has ones
    theirs = zuko.transforms.LULinearTransform(packed)
    x = torch.randn(4, 5, dtype=torch.float64)
    order = torch.linalg.lu(weight)[0]
    torch.testing.assert_close(mix.encode(x)[0], theirs(x) @ order.T)
    torch.testing.assert_close(log_det.expand(4), theirs.log_abs_det_jacobian(x, theirs(x)))


def test_multi_scale_wiring_against_a_handwritten_one():
    torch.manual_seed(0)
    levels = [ActNorm(4).double(), ActNorm(8).double()]
    with torch.no_grad():
        for parameter in nn.ModuleList(levels).parameters():
            parameter += torch.randn_like(parameter)
    flow = Flow(MultiScale(*(Chain(Squeeze(), level) for level in levels))).eval()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    first, first_log_det = levels[0].encode(nn.functional.pixel_unshuffle(x, 2))
    second, second_log_det = levels[1].encode(nn.functional.pixel_unshuffle(first[:, :2], 2))
    latents, log_det = flow.encode(x)
    assert torch.equal(latents[0], first[:, 2:])
    assert torch.equal(latents[1], second)
    torch.testing.assert_close(log_det, first_log_det + second_log_det)
