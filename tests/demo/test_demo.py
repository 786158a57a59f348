"""The demo's promises, on fewer images than the demo itself takes."""

import json

import pytest
import torch

from dracones.demo import demo_images, story, tell_story
from dracones.demo.page import write_all
from dracones.demo.story import summary


@pytest.fixture(scope="module")
def images():
    return demo_images(0, train=600, calibration=200, test=200)


@pytest.fixture(scope="module")
def result(images):
    original, story._STEPS = story._STEPS, 30
    try:
        return tell_story(images)
    finally:
        story._STEPS = original


def test_no_pixel_of_the_training_cells_is_in_a_test_crop(images):
    """Crops of different cells share no pixel: no test crop's row occurs in any training crop."""
    train = {row.tobytes() for row in images.train.numpy().reshape(-1, 32)}
    test = images.test.numpy().reshape(-1, 32)
    assert sum(row.tobytes() in train for row in test) / len(test) < 0.001


def test_scenes_hold_an_object_each(images):
    assert images.scenes.masks.flatten(1).any(dim=1).all()
    assert (images.scenes.masks.float().mean(dim=(1, 2)) < 0.3).all()


def test_same_seed_same_images():
    first, second = (demo_images(3, train=48, calibration=24, test=24) for _ in range(2))
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.scenes.images, second.scenes.images)
    assert not torch.equal(first.train, demo_images(4, train=48, calibration=24, test=24).train)


def test_likelihood_is_fooled_and_auto_repairs_it(result):
    fooled = {name for name, values in result.auroc.items() if values["likelihood"] < 0.5}
    assert "brick" in fooled
    assert all(result.auroc[name]["auto"] > 0.95 for name in fooled)


def test_false_alarms_stay_near_the_promise(result):
    # 200 calibration and 200 test crops: three standard deviations are 6.5 %
    assert result.realised < 0.05 + 0.065


def test_maps_point_at_the_objects(result):
    assert result.pixel["auroc"]["value"] > 0.75


def test_everything_is_written_and_the_numbers_agree(result, images, tmp_path):
    files = write_all(tmp_path / "out", result, images, 0)
    assert all(path.is_file() and path.stat().st_size > 500 for path in files)
    assert {path.name for path in files} >= {"model.safetensors", "scores.csv", "report.html", "overview.png"}
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert numbers["auroc"] == summary(result)["auroc"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert f"{result.auroc['brick']['auto']:.3f}" in page
