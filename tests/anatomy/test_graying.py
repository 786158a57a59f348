"""Contrast and likelihood, for a density that loves mid-gray and for one that hates it."""

import json

import pytest
import torch

from dracones.anatomy.graying import graying


def test_likelihood_follows_contrast_as_the_density_says(normal_density, random_images):
    x = random_images(20, (1, 2, 2))
    loves = normal_density((1, 2, 2), torch.full((4,), 0.5), torch.eye(4) * 0.02)
    found = graying(loves, x, {"pale": 0.5 + 0.1 * (x - 0.5)})
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
    bits = [each.value for each in graying(away, dark, {"x": x}).bits_per_dim["normal"]]
    assert bits == sorted(bits)


def test_bits_are_those_of_the_grayed_8_bit_images(normal_density, random_images):
    density = normal_density((1, 2, 2), torch.full((4,), 0.3), torch.eye(4) * 0.05)
    x = random_images(9, (1, 2, 2))
    found = graying(density, x, {"x": x}, contrasts=(0.5,))
    halfway = ((127.5 + 0.5 * (x * 255 - 127.5)).round()) / 255
    assert found.bits_per_dim["normal"][0].value == pytest.approx(float(density.bits_per_dim(halfway).mean()))


def test_figure_json_and_refusal(normal_density, random_images):
    density = normal_density((1, 2, 2), torch.full((4,), 0.3), torch.eye(4) * 0.05)
    x = random_images(9, (1, 2, 2))
    found = graying(density, x, {"x": x})
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)
    assert len(found.rows()) == 12
    with pytest.raises(ValueError, match=r"contrast: expected a number in \[0, 1\], got 1.5"):
        graying(density, x, {"x": x}, contrasts=(1.5,))
