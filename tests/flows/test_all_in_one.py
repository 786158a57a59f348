"""The all-in-one step: its formula, and what a heat map needs of it."""

import pytest
import torch
from torch import nn

from dracones.flows import AllInOne, ConvNet, Permutation


def step(channels=5, mixing="permutation", maps=True, seed=0):
    torch.manual_seed(seed)

    def conditioner(read, out):
        if maps:
            return ConvNet(read, out, hidden=6, kernels=(3, 1))
        return nn.Sequential(nn.Linear(read, 6), nn.Tanh(), nn.Linear(6, out))

    made = AllInOne(channels, conditioner, clamp=1.9, mixing=mixing, generator=torch.Generator().manual_seed(seed))
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0, 0.8)
    made.double()
    return made


def features(channels=5, maps=True, seed=1):
    shape = (2, channels, 3, 4) if maps else (4, channels)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def formula(flow, x):
    """(z, log-det per position) by the formula of the docstring, one operation at a time."""
    changed = x.shape[1] // 2
    kept = x.shape[1] - changed
    raw = flow.coupling.conditioner(x[:, :kept])
    s, t = 1.9 * torch.tanh(0.1 * raw[:, :changed]), 0.1 * raw[:, changed:]
    y = torch.cat((x[:, :kept], x[:, kept:] * s.exp() + t), 1)
    wide = (-1, *[1] * (x.ndim - 2))
    y = y * flow.affine.log_scale.exp().view(wide) + flow.affine.shift.view(wide)
    log_det = s.sum(1) + flow.affine.log_scale.sum()
    if isinstance(flow.mix, Permutation):
        return y[:, flow.mix.index], log_det
    return torch.einsum("ij,bj...->bi...", flow.mix.matrix, y), log_det


@pytest.mark.parametrize("mixing", ["permutation", "rotation"])
@pytest.mark.parametrize("maps", [True, False])
def test_encoding_is_the_formula(maps, mixing):
    flow, x = step(mixing=mixing, maps=maps), features(maps=maps)
    torch.testing.assert_close(flow.encode_map(x), formula(flow, x), rtol=1e-6, atol=1e-6)


def test_log_det_per_position_sums_to_the_whole():
    flow, x = step(), features()
    _, per_position = flow.encode_map(x)
    assert per_position.shape == (2, 3, 4)
    torch.testing.assert_close(per_position.sum((1, 2)), flow.encode(x)[1])
    traced = sum(part.log_det_map for part in flow.trace(x))
    torch.testing.assert_close(traced, per_position)


def test_a_new_step_only_mixes():
    flow = AllInOne(4, lambda read, out: ConvNet(read, out, hidden=4, kernels=(1, 1)), clamp=2.0)
    x = features(4).float()
    z, log_det = flow.encode(x)
    assert torch.equal(z, x[:, flow.mix.index])
    assert torch.equal(log_det, torch.zeros(2))


def test_log_scale_never_exceeds_its_clamp():
    flow = step()
    with torch.no_grad():
        for parameter in flow.coupling.conditioner.parameters():
            parameter.mul_(1e4)
        flow.affine.log_scale.zero_()
        _, log_det = flow.encode_map(features())
    assert log_det.abs().max() <= 1.9 * 2 + 1e-6


def test_mixing_is_saved_and_one_channel_is_refused():
    first, second = step(seed=0), step(seed=3)
    second.load_state_dict(first.state_dict())
    x = features()
    assert torch.equal(first.encode(x)[0], second.encode(x)[0])
    with pytest.raises(ValueError, match="at least 2 channels"):
        AllInOne(1, lambda read, out: nn.Identity(), clamp=1.0)
    with pytest.raises(ValueError, match=r"expected a shape \[B, 5, ...\]"):
        first.encode(features(4))
