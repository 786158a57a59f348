"""A loss by parts is the loss of the whole batch, gradient included."""

import pytest
import torch
from torch import nn

from dracones.methods.feature_flows.by_parts import mean_loss_by_parts


def case():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
    return network, [*network.parameters(), unused, frozen], torch.randn(7, 3, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_value_and_gradient_are_those_of_the_whole_batch(size):
    network, parameters, x = case()
    seen = []

    def loss_of(part):
        seen.append(len(part))
        return network(part).square().mean()

    learning = list(network.parameters())
    expected = network(x).square().mean()
    wanted = torch.autograd.grad(3 * expected, learning)
    value = mean_loss_by_parts(loss_of, parameters, x, size)
    torch.testing.assert_close(value, expected)
    (3 * value).backward()
    for parameter, grad in zip(learning, wanted, strict=True):
        torch.testing.assert_close(parameter.grad, grad)
    assert max(seen) == min(size, 7)
    assert sum(seen) == 7
    assert not parameters[-2].grad.any()
    assert parameters[-1].grad is None


def test_without_gradients_nothing_is_gathered():
    network, parameters, x = case()
    with torch.no_grad():
        value = mean_loss_by_parts(lambda part: network(part).square().mean(), parameters, x, 2)
    assert not value.requires_grad
    torch.testing.assert_close(value, network(x).square().mean().detach())


def test_gradient_is_that_of_finite_differences():
    network, parameters, x = case()

    def run(*_):
        return mean_loss_by_parts(lambda part: network(part).square().mean(), parameters, x, 2)

    assert torch.autograd.gradcheck(run, list(network.parameters()))
