"""The checks, on densities of which it is known what they should find."""

import json

import pytest
import torch

from dracones import densities
from dracones.anatomy.sensitivity import sensitivity, there_and_back, trivial_images


def test_a_density_of_mid_gray_prefers_gray_and_hates_black(normal_density, random_images):
    density = normal_density((1, 8, 8), torch.full((64,), 0.5), torch.eye(64) * 0.02)
    found = sensitivity(density, random_images(20, (1, 8, 8)), {"x": random_images(20, (1, 8, 8), seed=1)}, seeds=2)
    trivial = {check.name: check.auroc["against normal"].value for check in found.of("trivial")}
    assert trivial["mid-gray"] == 0
    assert trivial["black"] == trivial["white"] == 1
    assert trivial["normal noise"] == 1


def test_shrinking_one_side_fakes_a_result_and_nothing_is_nothing(normal_density, random_images):
    # independent pixels: shrinking averages them towards gray, which this density takes for more normal
    density = normal_density((1, 8, 8), torch.full((64,), 0.5), torch.eye(64) * 0.02)
    x = random_images(20, (1, 8, 8))
    found = sensitivity(density, x, {"x": x}, seeds=2)
    by_filter = {check.name: check.auroc["against itself"].value for check in found.of("filter")}
    assert by_filter["bilinear, 4 px"] < 0.05
    # nearest neighbour keeps the values' spread
    assert by_filter["nearest, 4 px"] > by_filter["bilinear, 4 px"] + 0.2
    # both sides treated alike and the same images: no difference
    for check in (*found.of("size"), *found.of("seed")):
        assert check.auroc["x"].value == pytest.approx(0.5, abs=0.1)


def test_seeds_move_a_flow_and_not_a_discrete_density(random_images):
    x = random_images(8, (1, 8, 8))
    flow = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
    found = sensitivity(flow, x, {"x": x}, seeds=3)
    assert len(found.of("seed")) == 3
    assert 0 < found.seed_spread < 1
    assert "Over 3 dequantisation seeds the AUROC is x 0." in found.in_words()[0]
    discrete = densities.create("pixelcnn", image_shape=(1, 8, 8), features=6, layers=2)
    found = sensitivity(discrete, x, {"x": x}, seeds=3)
    assert found.of("seed") == ()
    assert found.seed_spread == 0
    assert found.in_words() == []
    found.figure().canvas.draw()
    json.dumps(found.to_json(), allow_nan=False)


def test_treatments_keep_images_images(random_images):
    x = random_images(3, (3, 9, 6))
    for interpolation in ("bilinear", "bicubic", "nearest"):
        treated = there_and_back(x, 4, interpolation)
        assert treated.shape == x.shape
        assert float(treated.min()) >= 0
        assert float(treated.max()) <= 1
        torch.testing.assert_close(treated * 255, (treated * 255).round(), rtol=0, atol=1e-3)
    for images in trivial_images((3, 5, 4), 2).values():
        assert images.shape == (2, 3, 5, 4)
        torch.testing.assert_close(images * 255, (images * 255).round(), rtol=0, atol=1e-3)
    assert torch.equal(trivial_images((1, 4, 4), 2)["uniform noise"], trivial_images((1, 4, 4), 2)["uniform noise"])


def test_figure_and_rows(normal_density, random_images):
    density = normal_density((1, 8, 8), torch.full((64,), 0.5), torch.eye(64) * 0.02)
    x = random_images(9, (1, 8, 8))
    found = sensitivity(density, x, {"a": x, "b": x}, seeds=2, sizes=[2, 4])
    found.figure().canvas.draw()
    assert len(found.rows()) == 6 + 3 + 2 * 2 + 2 * 2
