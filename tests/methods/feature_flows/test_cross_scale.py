"""Convolutions in another order are the same convolutions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dracones.methods.feature_flows.cross_scale import convolve, convolve_enlarged


def layer(kernel, stride=1, bias=True, read=3, out=5):
    torch.manual_seed(0)
    return nn.Conv2d(read, out, kernel, stride, kernel // 2, bias=bias).double()


def maps(size, read=3):
    return torch.randn(2, read, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("small", "large"), [((2, 3), (4, 6)), ((3, 4), (5, 7)), ((1, 1), (2, 3)), ((4, 4), (4, 4))])
def test_enlarging_after_the_product_is_convolving_the_enlarged(kernel, small, large):
    network, x = layer(kernel), maps(small).requires_grad_()
    expected = network(F.interpolate(x, size=large, mode="bilinear", align_corners=False))
    got = convolve_enlarged(network, x, large)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    inputs = (x, *network.parameters())
    pull = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for a, b in zip(torch.autograd.grad(got, inputs, pull), torch.autograd.grad(expected, inputs, pull), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_enlarging_without_bias_and_under_inference_mode():
    network = layer(3, bias=False)
    with torch.inference_mode():
        convolve_enlarged(network, maps((5, 9)), (11, 18))
    x = maps((5, 9)).requires_grad_()
    convolve_enlarged(network, x, (11, 18)).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)])
def test_weight_gradient_from_products_is_the_gradient(kernel, stride, size):
    network = layer(kernel, stride).float()
    x = maps(size).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        got = convolve(network, x)
    pull = torch.randn(got.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    inputs = (x, *network.parameters())
    found = torch.autograd.grad(got, inputs, pull)
    network.double()
    x64 = x.detach().double().requires_grad_()
    exact = network(x64)
    torch.testing.assert_close(got.double(), exact, rtol=0.03, atol=0.03)
    for a, b in zip(found, torch.autograd.grad(exact, (x64, *network.parameters()), pull.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.03, atol=0.03 * float(b.abs().max()))


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_weight_gradient_from_products_in_float32(kernel, stride, size):
    network, x = layer(kernel, stride).float(), maps(size).float().requires_grad_()
    got, expected = convolve(network, x), network(x)
    torch.testing.assert_close(got, expected)
    assert "_Convolution" in got.grad_fn.next_functions[0][0].name()
    pull = torch.randn(got.shape, generator=torch.Generator().manual_seed(2))
    inputs = (x, *network.parameters())
    for a, b in zip(torch.autograd.grad(got, inputs, pull), torch.autograd.grad(expected, inputs, pull), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_other_convolutions_are_left_alone():
    double, x = layer(3), maps((4, 4))
    dilated = nn.Conv2d(3, 5, 3, padding=2, dilation=2)
    for network, seen in ((double, x), (dilated, x.float())):
        assert convolve(network, seen).grad_fn.name().startswith("Convolution")
