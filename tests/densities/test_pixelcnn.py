"""PixelCNN: the masks are causal, the probabilities sum to one, the moments are the distribution's own."""

import math

import pytest
import torch

from dracones.densities import create
from dracones.densities.pixelcnn import PRESETS, PixelCNN
from dracones.densities.pixelcnn_layers import PixelCNNNetwork


def images(count, shape, seed=0):
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed)) / 255


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (3, 3), (2, 2)])
@pytest.mark.parametrize("layers", [1, 3])
def test_no_output_sees_itself_or_what_follows_and_every_one_sees_all_before(channels, groups, layers):
    torch.manual_seed(0)
    side = 5
    outputs = 2 * groups
    network = PixelCNNNetwork(
        channels, groups, outputs, features=8 * groups, layers=layers, kernel=3, first_kernel=2 * side + 1
    ).double()
    image = torch.rand(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    out = network(image).unflatten(1, (groups, outputs // groups)).sum(2)[0]

    def order(channel, row, column):
        # the place in the order of values; with one group, a pixel's channels come all at once
        return (row * side + column) * groups + (channel if groups > 1 else 0)

    for group in range(groups):
        for row in range(side):
            for column in range(side):
                (gradient,) = torch.autograd.grad(out[group, row, column], image, retain_graph=True)
                for c in range(channels):
                    for r in range(side):
                        for k in range(side):
                            seen = gradient[0, c, r, k].abs() > 0
                            before = order(c, r, k) < order(group, row, column)
                            assert bool(seen) == before, (group, row, column, c, r, k)


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_changing_a_pixel_never_changes_an_earlier_probability(likelihood):
    density = PixelCNN((3, 6, 6), features=12, layers=3, kernel=3, first_kernel=5, likelihood=likelihood, components=2)
    x = images(1, (3, 6, 6))
    before = density.log_prob_map(x)
    for row, column in [(0, 0), (2, 3), (5, 5)]:
        changed = x.clone()
        changed[:, :, row, column] = 1 - changed[:, :, row, column]
        after = density.log_prob_map(changed)
        place = row * 6 + column
        assert torch.equal(after.flatten()[:place], before.flatten()[:place])
        assert not torch.isclose(after.flatten()[place], before.flatten()[place])


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_one_pixel_images_sum_to_one(likelihood):
    density = PixelCNN((1, 1, 1), features=4, layers=1, likelihood=likelihood, components=2)
    every = (torch.arange(256.0) / 255).reshape(256, 1, 1, 1)
    assert float(density.log_prob(every).detach().exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "likelihood"), [((2, 1, 1), "mixture"), ((2, 1, 1), "categorical"), ((1, 1, 2), "mixture")]
)
def test_two_value_images_sum_to_one(shape, likelihood):
    density = PixelCNN(shape, features=4, layers=2, likelihood=likelihood, components=2, seed=3)
    every = torch.cartesian_prod(torch.arange(256.0), torch.arange(256.0)) / 255
    with torch.no_grad():
        total = sum(part.exp().double().sum() for part in density.log_prob(every.reshape(-1, *shape)).split(8192))
    assert float(total) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_expectation_and_surprise_agree_with_an_enumeration(likelihood):
    # one pixel: the conditional distribution is the distribution, so both moments can be added up
    density = PixelCNN((1, 1, 1), features=4, layers=1, likelihood=likelihood, components=2)
    every = (torch.arange(256.0) / 255).reshape(256, 1, 1, 1)
    with torch.no_grad():
        found = density.statistics(every)
    log_p = found["log_prob"].double()
    mean = (log_p.exp() * log_p).sum()
    deviation = (log_p.exp() * (log_p - mean) ** 2).sum().sqrt()
    torch.testing.assert_close(found["expected_log_prob"].double(), mean.expand(256), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["surprise"].double(), (log_p - mean) / deviation, rtol=2e-3, atol=2e-3)


def test_surprise_of_a_certain_model_is_finite():
    """Where one level has all the probability log p does not vary: nothing to divide by."""
    density = PixelCNN((1, 2, 2), features=4, layers=1, likelihood="categorical")
    last = list(density.network.parameters())[-1]
    with torch.no_grad():
        last.zero_()[7] = 1e4
        found = density.statistics(torch.tensor([7.0, 8.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2) / 255)
    assert last.shape == (256,)
    assert found["surprise"][0] == 0
    assert -1e12 < found["surprise"][1] < -1e6


def test_surprise_of_the_models_own_samples_is_standard():
    density = PixelCNN((1, 6, 6), features=6, layers=2, kernel=3, first_kernel=3, components=2, seed=1)
    samples = density.sample(96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        surprise = density.statistics(samples, names=["surprise"])["surprise"]
    # mean of 96 draws of about N(0, 1): four standard errors
    assert abs(float(surprise.mean())) < 4 / math.sqrt(96)
    assert 0.7 < float(surprise.std()) < 1.3


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_samples_follow_the_distribution(likelihood):
    density = PixelCNN((1, 1, 2), features=4, layers=2, likelihood=likelihood, components=2, seed=5)
    with torch.no_grad():
        # weights large enough that the second pixel really depends on the first
        for parameter in density.network.output.parameters():
            parameter.mul_(4)
        drawn = density.sample(4000, generator=torch.Generator().manual_seed(1))
        every = torch.cartesian_prod(torch.arange(256.0), torch.arange(256.0)).reshape(-1, 1, 1, 2) / 255
        p = density.log_prob(every).double().exp()
    for values in (lambda x: x[..., 0], lambda x: x[..., 1], lambda x: x.prod(-1)):
        expected = (p * values(every.flatten(1))).sum()
        spread = ((p * values(every.flatten(1)) ** 2).sum() - expected**2).sqrt()
        got = float(values(drawn.flatten(1)).mean() - expected)
        assert got == pytest.approx(0, abs=4.5 * float(spread) / math.sqrt(4000))


def test_sampling_from_a_cut_strip_is_sampling_from_the_whole():
    density = PixelCNN((1, 9, 4), features=4, layers=2, kernel=3, first_kernel=3, components=2).eval()
    reach = density.network.reach
    assert reach == 2
    x = torch.rand(2, 1, 9, 4) * 2 - 1
    whole = density.network(x)
    for row in range(9):
        strip = density.network(x[:, :, max(0, row - reach) : row + 1])[:, :, -1]
        torch.testing.assert_close(strip, whole[:, :, row], rtol=1e-5, atol=1e-6)


def test_learns_what_the_second_pixel_owes_the_first():
    # x1 dark or light by a fair coin, x2 = x1: one bit and none, half a bit a dimension
    generator = torch.Generator().manual_seed(0)
    density = PixelCNN((1, 1, 2), features=16, layers=2, kernel=3, first_kernel=3, likelihood="categorical")
    optimizer = torch.optim.Adam(density.parameters(), lr=1e-2)
    for _ in range(200):
        coin = torch.randint(0, 2, (64, 1, 1, 1), generator=generator) * 0.6 + 0.2
        loss = density.training_loss(coin.repeat(1, 1, 1, 2), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(density.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        every = torch.tensor([[0.2, 0.2], [0.8, 0.8], [0.2, 0.8], [0.8, 0.2]]).reshape(4, 1, 1, 2)
        p = density.log_prob(every).exp()
    assert p[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.2)
    assert float(p[:2].sum()) > 0.9
    assert float(p[2:].max()) < 0.05


def test_dropout_needs_training_mode_and_a_generator():
    density = PixelCNN((1, 4, 4), features=8, layers=2, components=2, dropout=0.5)
    x = images(2, (1, 4, 4))
    plain = density.eval().log_prob(x)
    assert torch.equal(density.eval().log_prob(x, generator=torch.Generator().manual_seed(0)), plain)
    assert torch.equal(density.train().log_prob(x), plain)
    dropped = density.train().log_prob(x, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(dropped, plain)
    assert torch.equal(density.train().log_prob(x, generator=torch.Generator().manual_seed(0)), dropped)


def test_score_does_not_depend_on_the_batch_and_survives_a_state_dict():
    density = PixelCNN((3, 5, 5), features=6, layers=2, components=2).eval()
    x = images(4, (3, 5, 5))
    together = density.statistics(x)
    other = PixelCNN((3, 5, 5), features=6, layers=2, components=2, seed=9).eval()
    other.load_state_dict(density.state_dict())
    for name, values in together.items():
        torch.testing.assert_close(density.statistics(x[2:3])[name], values[2:3], rtol=1e-4, atol=1e-3)
        assert torch.equal(other.statistics(x)[name], values)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    first = PixelCNN((1, 4, 4), features=4, layers=2, seed=7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = PixelCNN((1, 4, 4), features=4, layers=2, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_presets_exist_with_known_options():
    for preset, options in PRESETS.items():
        narrow = {**options, "features": 6, "layers": 2}
        assert PixelCNN((3, 4, 4), **narrow).log_prob(images(1, (3, 4, 4))).isfinite().all(), preset


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="odd and at least 3, got 4"):
        PixelCNN((1, 4, 4), kernel=4)
    with pytest.raises(ValueError, match="'mixture' or 'categorical'"):
        PixelCNN((1, 4, 4), likelihood="poisson")
    density = PixelCNN((1, 4, 4), features=4, layers=1)
    with pytest.raises(ValueError, match=r"\[B, 1, 4, 4\], got \[1, 3, 4, 4\]"):
        density.log_prob(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="cannot give the statistics"):
        density.statistics(images(1, (1, 4, 4)), names=["log_det"])
    with pytest.raises(TypeError, match="density of pixel levels"):
        density.log_prob_at(images(1, (1, 4, 4)))


def test_scores_of_fixed_weights_stay_what_they_were():
    density = PixelCNN((2, 3, 3), features=4, layers=2, kernel=3, first_kernel=3, components=2, seed=0).eval()
    x = torch.linspace(0, 1, 18).reshape(1, 2, 3, 3)
    with torch.no_grad():
        found = density.statistics(x)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"log_prob": -107.4734, "expected_log_prob": -89.86601, "surprise": -3.1582}, rel=2e-4, abs=2e-4
    )


@pytest.mark.parametrize("likelihood", ["mixture", "categorical"])
def test_colder_images_take_fewer_levels(likelihood):
    density = create("pixelcnn", image_shape=(1, 4, 4), likelihood=likelihood)
    if likelihood == "categorical":  # an untrained one has no preference to sharpen
        torch.nn.init.normal_(density.network.output.bias, std=2, generator=torch.Generator().manual_seed(0))

    def levels(temperature):
        drawn = density.sample(32, generator=torch.Generator().manual_seed(0), temperature=temperature)
        return len(drawn.unique())

    assert levels(0.02) < levels(0.5) < levels(2.0)
