"""Conditioners: zeros at the end, bottlenecks, the papers' sizes, every way to differentiate."""

from functools import partial

import pytest
import torch
from torch import nn

from dracones.flows import MLP, Bottleneck, ConvNet, Highway, ResNet
from dracones.flows.autodiff import plain_autograd

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


@pytest.mark.parametrize("make", SPATIAL.values(), ids=SPATIAL.keys())
def test_every_way_to_differentiate_gives_one_jacobian(make):
    network = moved(make(1, 2))
    x = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    by_rows = torch.autograd.functional.jacobian(network, x)
    torch.testing.assert_close(torch.func.jacrev(network)(x), by_rows)
    torch.testing.assert_close(torch.func.jacfwd(network)(x), by_rows)
    _, along = torch.autograd.functional.jvp(network, x, torch.ones_like(x))
    torch.testing.assert_close(along, by_rows.sum((4, 5, 6, 7)))


def test_hidden_maps_on_a_cpu_are_channels_last_and_the_result_contiguous():
    network, seen = ConvNet(2, 4, hidden=8), []
    network.network[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    output = network(torch.randn(2, 2, 5, 6))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert output.is_contiguous()


def test_the_private_questions_to_torch_are_still_answered():
    """What `plain_autograd` asks: that neither function transforms nor forward mode are at work."""
    assert torch._C._are_functorch_transforms_active() is False
    assert torch.autograd.forward_ad._current_level == -1
    assert plain_autograd()
    seen = []
    torch.func.jacrev(lambda x: seen.append(plain_autograd()) or x)(torch.ones(1))
    with torch.autograd.forward_ad.dual_level():
        seen.append(plain_autograd())
    assert seen == [False, False]
