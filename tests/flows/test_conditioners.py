"""Conditioners: zeros at the end, bottlenecks, the papers' sizes, and the pixelwise path against convolutions."""

from functools import partial

import pytest
import torch
from torch import nn

from dracones.flows import MLP, Bottleneck, ConvNet, Highway, ResNet
from dracones.flows.conditioners.pixelwise import PixelwiseNetwork, convolve, matrices

SPATIAL = {
    "convnet": partial(ConvNet, hidden=6),
    "convnet-33": partial(ConvNet, hidden=6, kernels=(3, 3)),
    "highway": partial(Highway, hidden=6),
    "resnet": partial(ResNet, hidden=6, blocks=2),
    "resnet-plain": partial(ResNet, hidden=6, blocks=3, batch_norm=False, double_after_norm=True),
}


def moved(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.double().eval()


@pytest.mark.parametrize("make", SPATIAL.values(), ids=SPATIAL.keys())
def test_maps_keep_their_size_and_start_at_zero(make):
    network = make(3, 4).eval()
    for size in ((1, 1), (5, 7)):
        output = network(torch.randn(2, 3, *size))
        assert output.shape == (2, 4, *size)
        assert torch.equal(output, torch.zeros_like(output))
    assert moved(network)(torch.randn(2, 3, 4, 4).double()).abs().min() > 0
    assert network(torch.randn(0, 3, 4, 4).double()).shape == (0, 4, 4, 4)


def test_mlp_starts_at_zero():
    assert torch.equal(MLP(3, 5, hidden=4)(torch.randn(2, 3)), torch.zeros(2, 5))
    assert MLP(3, 5, layers=1, dropout=0.5)(torch.randn(0, 3)).shape == (0, 5)


def rank(network, x):
    jacobian = torch.autograd.functional.jacobian(lambda v: network(v[None]).flatten(), x[0])
    return int(torch.linalg.matrix_rank(jacobian.reshape(jacobian.shape[0], -1), rtol=1e-9))


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("make", SPATIAL.values(), ids=SPATIAL.keys())
def test_a_bottleneck_lets_through_l_dimensions(make, dimensions):
    x = torch.randn(1, 2, 4, 5).double()
    narrow = moved(make(2, 4, bottleneck=dimensions, size=(4, 5)))
    assert rank(narrow, x) == dimensions
    assert rank(moved(make(2, 4)), x) > 3  # what the bottleneck is compared with


def test_a_bottleneck_in_a_perceptron():
    assert rank(moved(MLP(8, 8, hidden=32, bottleneck=2)), torch.randn(1, 8).double()) == 2
    assert rank(moved(MLP(8, 8, hidden=32)), torch.randn(1, 8).double()) > 2


def test_bottlenecks_say_what_they_need():
    with pytest.raises(ValueError, match=r"ConvNet: a bottleneck needs the size \(H, W\)"):
        ConvNet(2, 2, bottleneck=3)
    with pytest.raises(ValueError, match=r"expected a shape \[B, 6, 4, 4\]; got \[1, 6, 4, 5\]"):
        ConvNet(2, 2, hidden=6, bottleneck=3, size=(4, 4))(torch.zeros(1, 2, 4, 5))
    with pytest.raises(ValueError, match="expected at least 1 dimension; got 0"):
        Bottleneck(3, 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvNet(2, 2, kernels=(3,)), "at least two odd kernel sizes"),
        (lambda: ConvNet(2, 2, kernels=(2, 3)), "at least two odd kernel sizes"),
        (lambda: MLP(2, 2, layers=0), "at least 1 hidden layer"),
        (lambda: Highway(2, 2, layers=0), "at least 1 layer"),
        (lambda: ResNet(2, 2, blocks=0), "at least 1 block"),
    ],
)
def test_sizes_that_make_no_network_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_papers_glow_has_its_number_of_parameters():
    """Kirichenko et al. 2020's Glow for FashionMNIST has 69,378,048 parameters in 2 levels of 16 steps."""
    total = 0
    for count in (4, 8):
        with torch.device("meta"):
            highway = Highway(count // 2, count, hidden=200, layers=3)
        actnorm_and_mixing = 2 * count + count * count
        total += 16 * (sum(p.numel() for p in highway.parameters()) + actnorm_and_mixing)
    assert total == 69_378_048


def test_batch_norm_sits_inside_the_resnet():
    network = ResNet(2, 4, hidden=5, blocks=2)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 2 + 2 * 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ResNet(2, 4, hidden=5, batch_norm=False).modules())


class TestPixelwise:
    """The matrix products give what convolutions give, gradients and second derivatives included."""

    def network(self, kernels=(3, 1, 3), hidden=5, channels=(2, 3), dtype=torch.float64):
        torch.manual_seed(0)
        widths = [channels[0], *(hidden for _ in kernels[1:]), channels[1]]
        convolutions = [
            nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in zip(widths, widths[1:], kernels, strict=False)
        ]
        return [c.to(dtype) for c in convolutions]

    def plain(self, convolutions, x):
        for convolution in convolutions[:-1]:
            x = convolution(x).relu()
        return convolutions[-1](x)

    @pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 4)])
    @pytest.mark.parametrize("kernels", [(3, 1, 3), (3, 3), (1, 3), (5, 1, 1, 3), (3, 1, 5), (1, 1, 1)])
    @pytest.mark.parametrize("pixels", [1, 40, 10_000])
    def test_equals_convolutions(self, monkeypatch, kernels, size, pixels):
        monkeypatch.setattr("dracones.flows.conditioners.pixelwise._PIXELS", pixels)
        convolutions = self.network(kernels)
        bias, weights = matrices(convolutions)
        x = torch.randn(5, 2, *size, dtype=torch.float64, requires_grad=True)
        expected = self.plain(convolutions, x)
        outputs = [
            PixelwiseNetwork.apply(x, (kernels[0], kernels[-1]), bias, *weights),
            convolve(x, (kernels[0], kernels[-1]), bias, weights),
        ]
        direction = torch.randn_like(expected)
        inputs = [x, *(p for c in convolutions for p in c.parameters())]
        wanted = torch.autograd.grad(expected, inputs, direction)
        for output in outputs:
            torch.testing.assert_close(output, expected)
            for a, b in zip(torch.autograd.grad(output, inputs, direction), wanted, strict=True):
                torch.testing.assert_close(a, b)

    def test_first_and_second_derivatives_by_differences(self):
        convolutions = self.network(hidden=3, channels=(1, 2))
        bias, weights = matrices(convolutions)
        x = torch.randn(2, 1, 3, 2, dtype=torch.float64, requires_grad=True)
        inputs = (x, bias.detach().requires_grad_(), *(w.detach().requires_grad_() for w in weights))

        def function(x, bias, *weights):
            return PixelwiseNetwork.apply(x, (3, 3), bias, *weights)

        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)

    def test_is_what_convnet_takes_and_when(self):
        assert ConvNet(2, 4, hidden=64).pixelwise
        assert not ConvNet(64, 128, hidden=64).pixelwise
        assert not ConvNet(2, 4, kernels=(3, 3, 3)).pixelwise
        network = moved(ConvNet(2, 4, hidden=64))
        x = torch.randn(3, 2, 6, 5, dtype=torch.float64)
        fast = network(x)
        network.pixelwise = False
        torch.testing.assert_close(network(x), fast)

    def test_other_ways_to_differentiate_still_work(self):
        network = moved(ConvNet(1, 2, hidden=64))
        x = torch.randn(2, 1, 3, 3, dtype=torch.float64)
        by_rows = torch.autograd.functional.jacobian(network, x)
        torch.testing.assert_close(torch.func.jacrev(network)(x), by_rows)
        torch.testing.assert_close(torch.func.jacfwd(network)(x), by_rows)
        _, along = torch.autograd.functional.jvp(network, x, torch.ones_like(x))
        torch.testing.assert_close(along, by_rows.sum((4, 5, 6, 7)))

    def test_mixed_precision_is_left_to_convolutions(self):
        network = moved(ConvNet(2, 4, hidden=64)).float()
        x = torch.randn(2, 2, 6, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert network(x).dtype == torch.bfloat16
        torch.testing.assert_close(network(x), network(x).float())

    def test_a_convolution_without_bias_is_refused(self):
        with pytest.raises(ValueError, match="expected convolutions with a bias"):
            matrices([nn.Conv2d(1, 2, 3, bias=False), nn.Conv2d(2, 1, 3)])
