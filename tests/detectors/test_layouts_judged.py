"""A category is judged as its layout means it: saturating defects, empty masks, images labelled anomalous."""

import json

import numpy as np
import pytest
from PIL import Image

import dracones
from dracones.detectors import evaluate, update
from dracones.images import Limits, open_images
from dracones.images.formats.layouts import images_to_test
from feature_case import SMALL, anomalies, normals


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy() if image.ndim == 3 else image
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def detector():
    return dracones.create("padim", **SMALL, dimensions=20).fit(normals(40))


@pytest.fixture
def loco(tmp_path):
    """Four anomalous images, whose defects are twice as large as what is wrong; less than half is enough."""
    odd, mask = anomalies(4)
    for i, image in enumerate(normals(4, seed=5)):
        save(tmp_path / "train" / "good" / f"{i}.png", image)
        save(tmp_path / "test" / "good" / f"{i}.png", normals(4, seed=6)[i])
    wide = (mask.numpy() | np.roll(mask.numpy(), 24, axis=0)).astype(np.uint8) * 255
    for i, image in enumerate(odd):
        save(tmp_path / "test" / "logical" / f"{i}.png", image)
        save(tmp_path / "ground_truth" / "logical" / f"{i}" / "0.png", wide)
    kind = {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 0.4, "relative_saturation": True}
    (tmp_path / "defects_config.json").write_text(json.dumps([kind]))
    return tmp_path


def judged(detector, category):
    test = open_images(images_to_test(category, Limits())[0])
    return evaluate(detector, test.subset(test.labels == 0), test.subset(test.labels == 1))


def test_what_saturates_a_defect_is_enough(detector, loco):
    found = judged(detector, loco).pixel
    assert found["auspro"]["value"] > 0.8
    assert found["auspro"]["value"] > found["aupro"]["value"] + 0.1, "the other half is nothing that could be seen"
    (loco / "defects_config.json").unlink()
    assert "auspro" not in judged(detector, loco).pixel


def test_a_mask_that_marks_nothing_says_no_more_than_none(detector, loco):
    (loco / "defects_config.json").unlink()
    save(loco / "ground_truth" / "logical" / "0" / "0.png", np.zeros((64, 64), np.uint8))
    found = judged(detector, loco)
    assert found.masked == 3
    assert "The masks of 1 of 4 anomalous images mark nothing, e.g. logical/0.png." in found.notes
    assert "Pixel metrics are of the other 3 and the normal ones." in found.notes
    for i in range(1, 4):
        save(loco / "ground_truth" / "logical" / f"{i}" / "0.png", np.zeros((64, 64), np.uint8))
    found = judged(detector, loco)
    assert found.pixel is None
    assert found.notes[-1] == "Pixel metrics have nothing to be of."


def test_what_is_labelled_anomalous_is_not_taken_for_normal(detector, loco):
    test = open_images(f"{loco}:test")
    message = "4 of 8 images of .*:test are labelled anomalous, e.g. logical/0.png, and cannot {} as normal ones"
    for purpose, attempt in {
        "be learnt from": lambda: dracones.create("padim", **SMALL).fit(test),
        "set a threshold": lambda: detector.calibrate(test, false_alarm_rate=0.2),
        "judge it": lambda: evaluate(detector, test, test),
    }.items():
        with pytest.raises(ValueError, match=message.format(purpose)):
            attempt()
    with pytest.raises(ValueError, match=message.format("be learnt from")):
        update(detector, test)
    shares = {"validation_share": 0, "calibration_share": 0}
    good = test.subset(test.labels == 0)
    assert dracones.create("padim", **SMALL, **shares, dimensions=3).fit(good).record is not None
