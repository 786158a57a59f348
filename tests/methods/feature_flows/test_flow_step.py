"""The step of feature flows: exact inverse, log-det against the Jacobian, its written-out gradient."""

import pytest
import torch
from torch import nn
from torch.func import jacrev

from dracones.flows import ConvNet
from dracones.methods.feature_flows.flow_step import FlowStep


def step(channels=5, mixing="permutation", maps=True, seed=0):
    torch.manual_seed(seed)

    def conditioner(read, out):
        if maps:
            return ConvNet(read, out, hidden=6, kernels=(3, 1))
        return nn.Sequential(nn.Linear(read, 6), nn.Tanh(), nn.Linear(6, out))

    made = FlowStep(channels, conditioner, clamp=1.9, mixing=mixing, generator=torch.Generator().manual_seed(seed))
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0, 0.8)
    made.double()
    if mixing == "rotation":  # drawn in float32: as orthogonal as float64 can say
        made.mixing = torch.linalg.qr(made.mixing).Q
    return made


def features(channels=5, maps=True, seed=1):
    shape = (2, channels, 3, 4) if maps else (4, channels)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mixing", ["permutation", "rotation"])
@pytest.mark.parametrize("maps", [True, False])
def test_inverse_and_log_det_are_exact(mixing, maps):
    flow, x = step(mixing=mixing, maps=maps), features(maps=maps)
    with torch.no_grad():
        z, log_det = flow.encode(x)
        back, same = flow.decode(z)
        torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(same, log_det, rtol=1e-10, atol=1e-10)
        for image in range(len(x)):
            jacobian = jacrev(lambda one: flow_without_custom_gradient(flow, one))(x[image : image + 1])
            side = x[0].numel()
            _, expected = torch.linalg.slogdet(jacobian.reshape(side, side))
            torch.testing.assert_close(log_det[image], expected, rtol=1e-9, atol=1e-9)


def flow_without_custom_gradient(flow, x):
    """The formula of the docstring, one operation at a time."""
    kept = flow.channels - flow.changed
    raw = flow.conditioner(x[:, :kept])
    s, t = 1.9 * torch.tanh(0.1 * raw[:, : flow.changed]), 0.1 * raw[:, flow.changed :]
    y = torch.cat((x[:, :kept], x[:, kept:] * s.exp() + t), 1)
    wide = (-1, *[1] * (x.ndim - 2))
    y = y * flow.log_scale.exp().view(wide) + flow.shift.view(wide)
    if flow.mixing.ndim == 1:
        return y[:, flow.mixing]
    return torch.einsum("ij,bj...->bi...", flow.mixing, y)


@pytest.mark.parametrize("maps", [True, False])
def test_encoding_is_the_formula(maps):
    flow, x = step(maps=maps), features(maps=maps)
    torch.testing.assert_close(flow.encode(x)[0], flow_without_custom_gradient(flow, x))


@pytest.mark.parametrize("mixing", ["permutation", "rotation"])
@pytest.mark.parametrize("channels", [4, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_written_out_is_the_gradient(mixing, channels, layout):
    flow = step(channels, mixing)
    x = features(channels).contiguous(memory_format=layout).requires_grad_()
    parameters = list(flow.parameters())

    def run(x, *_):
        return flow.encode_map(x)

    assert torch.autograd.gradcheck(run, (x, *parameters), atol=1e-6)


def test_log_det_per_position_sums_to_the_whole():
    flow, x = step(), features()
    _, per_position = flow.encode_map(x)
    assert per_position.shape == (2, 3, 4)
    torch.testing.assert_close(per_position.sum((1, 2)), flow.encode(x)[1])
    (traced,) = flow.trace(x)
    torch.testing.assert_close(traced.log_det_map, per_position)


def test_a_new_step_only_mixes():
    flow = FlowStep(4, lambda read, out: ConvNet(read, out, hidden=4, kernels=(1, 1)), clamp=2.0)
    x = features(4).float()
    z, log_det = flow.encode(x)
    assert torch.equal(z, x[:, flow.mixing])
    assert torch.equal(log_det, torch.zeros(2))


def test_log_scale_never_exceeds_its_clamp():
    flow = step()
    with torch.no_grad():
        for parameter in flow.conditioner.parameters():
            parameter.mul_(1e4)
        flow.log_scale.zero_()
        _, log_det = flow.encode_map(features())
    assert log_det.abs().max() <= 1.9 * flow.changed + 1e-9


def test_mixing_is_saved_and_one_channel_is_refused():
    first, second = step(seed=0), step(seed=3)
    second.load_state_dict(first.state_dict())
    x = features()
    assert torch.equal(first.encode(x)[0], second.encode(x)[0])
    with pytest.raises(ValueError, match="at least 2 channels"):
        FlowStep(1, lambda read, out: nn.Identity(), clamp=1.0)
    with pytest.raises(ValueError, match=r"expected a shape \[B, 5, ...\]"):
        first.encode(features(4))
