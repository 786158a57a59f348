import math

import numpy as np
import pytest
import torch

from dracones.densities import create
from dracones.rules import (
    cheap_statistics,
    complexity,
    create_for,
    gather,
    image_statistics,
    level_statistics,
    subband_energies,
    subband_names,
)


@pytest.fixture(scope="module")
def density():
    return create("glow", image_shape=(1, 8, 8), steps=1, hidden=4).eval()


def images(count=5, shape=(1, 8, 8)):
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0)) / 255


class Counting:
    """A density that counts what it is asked for."""

    image_shape = (1, 8, 8)
    available_statistics = ("log_prob", "log_det")

    def __init__(self, value=0.0):
        self.asked, self.value = [], value

    def statistics(self, images, *, names=None, generator=None):
        self.asked.append(tuple(names))
        return {name: images.mean((1, 2, 3)) + self.value for name in names}


def test_gather_asks_for_no_more_than_is_needed():
    counting = Counting()
    gather(counting, images(), ["complexity_png"])
    assert counting.asked == []
    gather(counting, images(), ["log_det"])
    assert counting.asked == [("log_det",)]


def test_gather_does_not_depend_on_batching(density):
    names = cheap_statistics(density)
    whole = gather(density, images(), names)
    parts = gather(density, images().split(2), names)
    tiny = gather(density, images(), names, batch_size=1)
    assert tuple(whole) == names
    for name in names:
        assert whole[name].dtype == torch.float64
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(whole[name], tiny[name], rtol=1e-5, atol=1e-3)


def test_gather_reports_progress_and_takes_no_images(density):
    seen = []
    gather(density, images(), ["log_prob"], batch_size=2, advance=seen.append)
    assert seen == [2, 2, 1]
    assert gather(density, [], ["log_prob"])["log_prob"].shape == (0,)


def test_background_and_ensemble():
    first, second = Counting(1.0), Counting(3.0)
    mean = images().mean((1, 2, 3)).double()
    found = gather(
        first,
        images(),
        ["background_log_prob", "ensemble_log_prob_mean", "ensemble_log_prob_variance"],
        background=second,
        ensemble=[first, second],
    )
    torch.testing.assert_close(found["background_log_prob"], mean + 3, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["ensemble_log_prob_mean"], mean + 2, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["ensemble_log_prob_variance"], torch.ones(5).double(), rtol=1e-5, atol=1e-5)


def test_what_nothing_supplies_is_named(density):
    with pytest.raises(ValueError, match=r"nothing given supplies the statistics \['background_log_prob'\]"):
        gather(density, images(), ["log_prob", "background_log_prob"])
    with pytest.raises(ValueError, match="likelihood_regret a VAE"):
        gather(density, images(), ["likelihood_regret"])


def test_rules_are_set_up_for_the_density(density):
    auto = create_for("auto", density)
    assert set(auto.requires) == set(density.available_statistics) | set(image_statistics((1, 8, 8)))
    assert create_for("auto", density, further=["layout_log_prob"]).requires[-1] == "layout_log_prob"
    assert create_for("auto", density, statistics=["log_prob"]).requires == ("log_prob",)
    assert create_for("dose", Counting()).requires == ("log_prob", "log_prob_latent", "log_det")
    lacking = Counting()
    lacking.available_statistics = ("log_prob", "elbo", "likelihood_regret")
    assert create_for("dose", lacking).requires == ("log_prob", "elbo")


def test_gradient_norm_against_finite_differences(density):
    image = images(1)
    norm = gather(density, image, ["gradient_norm"])["gradient_norm"]
    points, _ = density.double().dequantise(image.double())
    step = 1e-6
    slopes = []
    for index in range(64):
        move = torch.zeros(64).double()
        move[index] = step
        move = move.view(1, 1, 8, 8)
        with torch.no_grad():
            slopes.append((density.log_prob_at(points + move) - density.log_prob_at(points - move)) / (2 * step))
    density.float()
    assert norm.item() == pytest.approx(torch.stack(slopes).norm().item(), rel=1e-3)


# ---- functions of the image alone


def test_subbands_of_white_noise_have_the_energy_of_the_noise():
    noise = 0.5 + 0.1 * torch.randn(4, 1, 128, 128, generator=torch.Generator().manual_seed(0)).double()
    energies = subband_energies(noise)
    for name in subband_names((1, 128, 128))[1:]:
        assert energies[name].mean().item() == pytest.approx(2 * math.log(0.1), abs=0.15)


def test_subbands_tell_direction_and_scale():
    stripes = (torch.arange(32) % 2).double().expand(32, 32)
    found = subband_energies(torch.stack([stripes, stripes.T])[:, None])
    assert found["subband1_vertical"][0] > found["subband1_horizontal"][0] + 8
    assert found["subband1_horizontal"][1] > found["subband1_vertical"][1] + 8
    wide = (torch.arange(32) // 2 % 2).double().expand(1, 1, 32, 32)
    found = subband_energies(wide)
    assert found["subband2_vertical"][0] > found["subband1_vertical"][0] + 8


def test_gray_pictures_in_colour_have_no_colour():
    gray = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).expand(2, 3, 16, 16)
    found = subband_energies(gray)
    assert set(found) == set(subband_names((3, 16, 16)))
    floor = math.log((1 / 255) ** 2 / 12)
    for name, values in found.items():
        if name.startswith("colour"):
            assert values.tolist() == pytest.approx([floor, floor], abs=1e-6)


def test_odd_sizes_and_flat_images_are_finite():
    for shape in ((1, 5, 7), (3, 3, 3), (1, 28, 28)):
        found = subband_energies(torch.zeros(1, *shape))
        assert tuple(found) == subband_names(shape)
        assert all(bool(torch.isfinite(values).all()) for values in found.values())


def test_level_statistics_against_scipy():
    from scipy.stats import entropy, skew

    image = images(1, (1, 16, 16))
    pixels = (image * 255).round().long().flatten().numpy()
    found = level_statistics(image)
    counts = np.bincount(pixels, minlength=256)
    assert found["level_entropy"].item() == pytest.approx(entropy(counts, base=2))
    assert math.sinh(found["skewness"].item()) == pytest.approx(skew(pixels), abs=1e-3)
    assert math.exp(found["contrast"].item()) == pytest.approx(pixels.std() / 255, rel=1e-4)
    assert found["extreme_share"].item() == pytest.approx((counts[0] + counts[255]) / 256)


def test_shape_and_codec_errors():
    for function in (subband_energies, level_statistics, complexity):
        with pytest.raises(ValueError, match=r"expected images \[B, C, H, W\]"):
            function(torch.zeros(8, 8))
    with pytest.raises(ValueError, match="codec 'flif' is not to be had"):
        complexity(images(), "flif")
    assert complexity(images(1, (2, 8, 8)), "png").item() == pytest.approx(
        sum(complexity(images(1, (2, 8, 8))[:, i : i + 1], "png").item() for i in range(2))
    )
