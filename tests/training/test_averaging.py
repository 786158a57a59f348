import torch
from torch import nn

from dracones.training.averaging import Average


def test_average_follows_the_written_recursion():
    layer = nn.Linear(2, 2)
    average = Average(layer, decay=0.6)
    expected = layer.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            layer.weight += 0.1
        average.update()
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(average.state()["weight"], expected)


def test_applied_swaps_and_swaps_back():
    layer = nn.Linear(2, 2)
    average = Average(layer, decay=0.9)
    with torch.no_grad():
        layer.weight += 1
    live, mean = layer.weight.detach().clone(), average.state()["weight"].clone()
    with average.applied():
        assert torch.equal(layer.weight, mean)
    assert torch.equal(layer.weight, live)
    assert torch.equal(average.state()["weight"], mean)


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    assert Average(layer, decay=0.9).names == ["weight"]
