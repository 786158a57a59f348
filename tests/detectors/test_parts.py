"""Losses in parts have the value and the gradient of the whole."""

import pytest
import torch
from torch import nn

from dracones.detectors.parts import loss_in_parts


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_value_and_gradient_are_those_of_the_whole_batch(size):
    torch.manual_seed(0)
    network = nn.ModuleList([nn.Conv2d(2, 3, 3).double(), nn.Linear(4, 1).double()])
    network[1].bias.requires_grad_(False)
    batch = (torch.randn(7, 2, 5, 5).double(), torch.randn(7, 4).double())

    def loss(levels):
        return network[0](levels[0]).square().mean() + network[1](levels[1]).exp().mean()

    whole = loss(batch)
    expected = torch.autograd.grad(whole, [p for p in network.parameters() if p.requires_grad])
    value = loss_in_parts(loss, batch, size, network)
    (3 * value).backward()
    torch.testing.assert_close(value.double(), whole.detach(), rtol=1e-6, atol=1e-6)
    got = [p.grad for p in network.parameters() if p.requires_grad]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, 3 * b)
    assert network[1].bias.grad is None


def test_under_autocast_and_without_gradient():
    torch.manual_seed(0)
    network = nn.Conv2d(2, 3, 3)
    batch = (torch.randn(4, 2, 5, 5),)

    def loss(levels):
        return network(levels[0]).float().square().mean()

    with torch.autocast("cpu", torch.bfloat16):
        value = loss_in_parts(loss, batch, 2, network)
        value.backward()
        in_parts = network.weight.grad.clone()
        network.zero_grad()
        loss(batch).backward()
    torch.testing.assert_close(in_parts, network.weight.grad, rtol=0.05, atol=0.01)
    with torch.no_grad():
        assert not loss_in_parts(loss, batch, 3, network).requires_grad
