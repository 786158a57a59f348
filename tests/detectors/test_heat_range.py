"""Heat maps are measured against those of normal images, whatever lies beside them in a folder."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.calibration.heat_range import HeatRange
from dracones.cli.map_folder import MapFolder
from dracones.images import open_images
from dracones.training.progress import Silent
from feature_case import SMALL, anomalies, normals


@pytest.fixture(scope="module")
def fitted():
    detector = dracones.create("patchcore", **SMALL, memory_share=0.02).fit(normals(40))
    return detector.calibrate(normals(60, seed=7), false_alarm_rate=0.05)


def test_the_outline_promises_what_the_threshold_promises(fitted):
    heat = fitted.heat_range
    maps = np.stack(fitted.predict(normals(60, seed=7)).maps)
    # floor(.05 * 61) = 3: two of the calibration images have a pixel above it
    assert (maps.max(axis=(1, 2)) > heat.threshold * (1 + 1e-6)).sum() == 2
    shares = (maps > heat.usual).mean(axis=(1, 2))
    assert np.median(shares) == pytest.approx(0.1, abs=0.01)
    low, high = heat.colours
    assert (low + high) / 2 == pytest.approx(heat.threshold)


def test_it_is_saved_and_follows_another_rate(fitted, tmp_path):
    again = dracones.load(fitted.save(tmp_path / "model.safetensors"))
    assert again.heat_range.state()[1] == fitted.heat_range.state()[1]
    before = again.heat_range.threshold
    again.calibrate(false_alarm_rate=0.3)
    assert again.heat_range.threshold < before
    assert again.tiled((32, 32)).heat_range is None


def test_too_few_for_the_rate_the_hottest_of_all_is_the_bound():
    heat = HeatRange.of([(0.0, 1.0), (0.2, 3.0), (0.1, 2.0)])
    assert (heat.usual, heat.threshold, heat.at(0.01).threshold) == (0.1, 3.0, 3.0)
    assert heat.at(0.5).threshold == 2.0
    assert heat.meaning(None) == "hotter than 3, as none of 3 calibration images are anywhere"
    assert HeatRange.of([]) is None


def test_a_calibration_that_fails_changes_nothing(fitted):
    before = fitted.calibration, fitted.threshold, fitted.heat_range
    with pytest.raises(ValueError, match="at least 99 scores"):
        fitted.calibrate(normals(5, seed=9), false_alarm_rate=0.01)
    assert (fitted.calibration, fitted.threshold, fitted.heat_range) == before


def test_a_folder_of_good_parts_looks_calm_and_a_defect_does_not(fitted, tmp_path):
    images, _ = anomalies(4)
    for name, part in (("good", normals(4, seed=7)), ("bad", images)):
        collection = fitted.adopt(open_images(part))
        drawn = MapFolder(tmp_path / name, fitted.heat_range)
        for verdict in fitted.iterate(collection):
            drawn.keep(verdict.path, verdict.map)
        drawn.draw(collection, Silent())
    good, bad = (
        [np.asarray(Image.open(path).convert("RGB"))[:192].astype(int) for path in (tmp_path / name).glob("*.png")]
        for name in ("good", "bad")
    )
    # the image itself is drawn gray: what is coloured is heat
    coloured = {name: [np.ptp(one, axis=2).max() for one in of] for name, of in (("good", good), ("bad", bad))}
    assert len(good) == len(bad) == 4
    assert max(coloured["good"]) < 60 < 100 < min(coloured["bad"])
    white = [(one > 250).all(axis=2).sum() for one in [*good, *bad]]
    assert max(white[:4]) == 0 < min(white[4:])


def test_the_scale_is_drawn_below_the_picture():
    from dracones.report import overlay

    picture = overlay(np.zeros((64, 96)), np.zeros((64, 96)), low=1.0, high=3.0, threshold=2.0, legend=True)
    drawn = np.asarray(Image.open(io.BytesIO(picture.data))).astype(int)
    bare = overlay(np.zeros((64, 96)), np.zeros((64, 96)), low=1.0, high=3.0, threshold=2.0)
    assert drawn.shape[0] == bare.height + 24
    bar = drawn[bare.height + 5]
    assert np.ptp(bar[2]) == 0 < 50 < np.ptp(bar[-2])
    assert (bar[drawn.shape[1] // 2] == 255).all()
    text = drawn[bare.height + 10 :].min(axis=(0, 2)) < 100
    thirds = np.array_split(text, 3)
    assert all(third.any() for third in thirds)


def test_methods_without_maps_have_no_range():
    detector = dracones.create("glow", epochs=1, density={"steps": 1, "hidden": 4}).fit(torch.rand(40, 1, 8, 8))
    assert detector.heat_range is None
