"""No NaN: deep flows on large inputs with a constant channel (benchmarks/flows/robustness.py is the full run)."""

from functools import partial

import pytest
import torch

from dracones.flows import (
    MLP,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    ConvNet,
    Flow,
    InvertibleConv1x1,
    Permutation,
    channels,
    checkerboard,
)

net = partial(ConvNet, hidden=8)


def glow(scale):
    return [
        m for _ in range(32) for m in (ActNorm(4), InvertibleConv1x1(4), AffineCoupling(channels(4), net, scale=scale))
    ]


def boards():
    masks = [checkerboard((4, 4, 4), reverse=i % 2 == 1) for i in range(32)]
    kinds = [AdditiveCoupling if i % 4 == 3 else partial(AffineCoupling, scale="atan") for i in range(32)]
    return [ActNorm(4), *(kind(mask, net) for kind, mask in zip(kinds, masks, strict=True))]


def vectors():
    mlp = partial(MLP, hidden=16)
    return [m for _ in range(32) for m in (AffineCoupling(channels(4), mlp, scale="atan"), Permutation.reversed(4))]


@pytest.mark.parametrize(
    ("build", "shape", "largest"),
    [
        (partial(glow, "tanh"), (4, 4, 4), 1e6),
        (partial(glow, "sigmoid"), (4, 4, 4), 1e6),
        (boards, (4, 4, 4), 1e6),
        (vectors, (4,), 1e3),
    ],
    ids=["glow", "glow-sigmoid", "checkerboards", "vectors-unnormalised"],
)
def test_training_stays_finite(build, shape, largest):
    torch.manual_seed(0)
    flow = Flow(Chain(*build()))
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, largest, largest**0.5, 1.0]).view(4, *(1 for _ in shape[1:]))
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(12):
        x = torch.randn(16, *shape, generator=generator) * scale + 3 * scale
        x[:, 3] = largest
        optimiser.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in flow.parameters() if p.grad is not None)
        optimiser.step()
    assert flow.first_non_finite(x) is None


def test_inputs_beyond_the_range_are_blamed_on_their_layer():
    flow = Flow(Chain(ActNorm(2), AffineCoupling(channels(2), MLP), ActNorm(2))).eval()
    with torch.no_grad():
        flow.bijection[2].log_scale.fill_(80.0)
    assert flow.first_non_finite(torch.full((1, 2), 1e30)) == "2 (ActNorm): output"
