"""What scores is a plain graph: exported with a free batch it gives the same numbers."""

from functools import partial

import pytest
import torch
from torch import nn

from dracones.flows import (
    ActNorm,
    AffineCoupling,
    AllInOne,
    Chain,
    ConvNet,
    Flow,
    InvertibleConv1x1,
    Logit,
    MultiScale,
    Squeeze,
    channels,
)


def moved(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return module.eval()


def glow():
    def level(count):
        coupling = AffineCoupling(channels(count), partial(ConvNet, hidden=8), scale="sigmoid")
        return Chain(Squeeze(), ActNorm(count), InvertibleConv1x1(count), coupling)

    return Flow(Chain(Logit(), MultiScale(level(4), level(8))), shape=(1, 8, 8))


def step(mixing="permutation"):
    return Flow(Chain(AllInOne(5, partial(ConvNet, hidden=8), clamp=1.9, mixing=mixing)))


class Map(nn.Module):
    """Log-likelihood per pixel."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.log_prob_map(x)


CASES = {
    "glow": (glow, (1, 8, 8)),
    "glow-map": (lambda: Map(glow()), (1, 8, 8)),
    "all-in-one": (step, (5, 4, 6)),
    "all-in-one-rotation-map": (lambda: Map(step("rotation")), (5, 4, 6)),
}


@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES.keys())
def test_exports_with_a_free_batch(make, shape):
    module = moved(make())
    batch = torch.export.Dim("batch", min=1, max=64)
    with torch.no_grad():
        exported = torch.export.export(module, (torch.rand(3, *shape),), dynamic_shapes=({0: batch},)).module()
        for count in (1, 7):
            x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))
            torch.testing.assert_close(exported(x), module(x), rtol=1e-6, atol=1e-6)
