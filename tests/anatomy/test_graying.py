"""Contrast and likelihood, for a density that loves mid-gray and for one that hates it."""

import json

import pytest
import torch

from dracones.anatomy.graying import graying


def test_likelihood_follows_contrast_as_the_density_says(normal_density, random_images):
    x = random_images(20, (1, 2, 2))
    loves = normal_density((1, 2, 2), torch.full((4,), 0.5), torch.eye(4) * 0.02)
    found = graying(loves, x, {"pale": 0.5 + 0.1 * (x - 0.5)}).towards["mid-gray"]
    bits = [each.value for each in found.bits_per_dim["normal"]]
    assert bits == sorted(bits, reverse=True)
    # at contrast 0 every image is the same gray, and every set equally likely
    last = found.bits_per_dim["normal"][-1]
    assert last.low == pytest.approx(last.high)
    assert found.bits_per_dim["pale"][-1].value == pytest.approx(last.value)
    assert [each.value for each in found.auroc["normal"]][-1] == 0
    assert found.auroc["normal"][0].value == 0.5
    away = normal_density((1, 2, 2), torch.zeros(4), torch.eye(4) * 0.02)
    dark = random_images(20, (1, 2, 2), high=10)
    bits = [each.value for each in graying(away, dark, {"x": x}).towards["mid-gray"].bits_per_dim["normal"]]
    assert bits == sorted(bits)


def test_bits_are_those_of_the_grayed_8_bit_images(normal_density, random_images):
    density = normal_density((1, 2, 2), torch.full((4,), 0.3), torch.eye(4) * 0.05)
    x = random_images(9, (1, 2, 2))
    found = graying(density, x, {"x": x}, contrasts=(0.5,)).towards["mid-gray"]
    halfway = ((127.5 + 0.5 * (x * 255 - 127.5)).round()) / 255
    assert found.bits_per_dim["normal"][0].value == pytest.approx(float(density.bits_per_dim(halfway).mean()))


def test_towards_the_data_mean_a_density_about_it_gains_where_mid_gray_loses(normal_density, random_images):
    x = random_images(30, (1, 2, 2), high=100)
    mean = x.mean(0).flatten()
    density = normal_density((1, 2, 2), mean, torch.eye(4) * 0.02)
    found = graying(density, x, {"x": x})
    gray, own = found.towards["mid-gray"], found.towards["data mean"]
    assert gray.change.low > 0 > own.change.high
    # at contrast 0 all that is left is the mean image, on the 256 levels
    torch.testing.assert_close(own.examples[-1], (x.mean(0) * 255).round() / 255)
    assert own.bits_per_dim["normal"][-1].value == pytest.approx(float(density.bits_per_dim(own.examples[-1][None])))
    pairs = (density.bits_per_dim(own.examples[-1][None]) - density.bits_per_dim(x)).double()
    assert own.change.value == pytest.approx(float(pairs.mean()))
    first, second = found.in_words()
    assert first.startswith("Towards mid-gray the normal images lose likelihood: from")
    assert "by way of" in first
    assert second.endswith("a washed-out copy is likelier than the original.")


def test_a_path_that_dips_says_where_it_is_likeliest(normal_density):
    x = torch.full((8, 1, 2, 2), 30 / 255)
    x[:4] += 2 / 255
    density = normal_density((1, 2, 2), torch.full((4,), 0.3), torch.eye(4) * 0.02)
    found = graying(density, x, {"x": x}, contrasts=(1.0, 0.5, 0.0)).in_words()[0]
    assert "at 0.5, where they are likeliest" in found


def test_figure_json_and_refusal(normal_density, random_images):
    density = normal_density((1, 2, 2), torch.full((4,), 0.3), torch.eye(4) * 0.05)
    x = random_images(9, (1, 2, 2))
    found = graying(density, x, {"x": x})
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    found.image_figure().canvas.draw()
    assert len(found.rows()) == 24
    with pytest.raises(ValueError, match=r"contrast: expected a number in \[0, 1\], got 1.5"):
        graying(density, x, {"x": x}, contrasts=(1.5,))
