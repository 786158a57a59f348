"""Heat maps are measured against those of normal images, whatever lies beside them in a folder."""

import io
import json

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
    assert heat.meaning() == "hotter than 3, as none of 3 calibration images are anywhere"
    assert HeatRange.of([]) is None


def test_a_pixel_as_hot_as_the_threshold_is_not_hot():
    heat = HeatRange.of([(0.0, float(peak)) for peak in range(19)]).at(0.05)
    assert heat.rate == 0.05, "19 images are just enough for 5 %"
    assert heat.threshold == 18
    assert heat.hot(np.array([[18.0, np.nan, np.nextafter(np.float32(18), np.float32(19))]])).tolist() == [
        [False, False, True]
    ]
    assert HeatRange.of([(0.0, float(peak)) for peak in range(18)]).at(0.05).rate is None


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


def test_pixels_may_have_a_rate_of_their_own(fitted, tmp_path):
    rated = dracones.load(fitted.save(tmp_path / "model.safetensors"))
    rated.calibrate(pixel_rate=0.2, false_alarm_rate=0.05)
    assert (rated.heat_range.rate, rated.false_alarm_rate) == (0.2, 0.05)
    assert rated.heat_range.threshold < fitted.heat_range.threshold
    again = dracones.load(rated.save(tmp_path / "rated.safetensors"))
    assert again.heat_range.state()[1] == rated.heat_range.state()[1]
    with pytest.raises(ValueError, match="at least 99"):
        rated.calibrate(pixel_rate=0.01, false_alarm_rate=0.05)
    glow = dracones.create("glow", epochs=1, density={"steps": 1, "hidden": 4}).fit(torch.rand(40, 1, 8, 8))
    with pytest.raises(ValueError, match="no heat maps"):
        glow.calibrate(torch.rand(40, 1, 8, 8), pixel_rate=0.1, false_alarm_rate=0.1)


def test_peaks_are_of_maps_at_the_images_own_size(fitted):
    """A map brought to 40 pixels has lower peaks than at 64: a promise made of one would not be exact for the other."""
    images = torch.nn.functional.interpolate(normals(60, seed=7), size=(40, 40), mode="area")
    small = dracones.create("patchcore", **SMALL, memory_share=0.02)
    small.fit(images[:40]).calibrate(images[40:], false_alarm_rate=0.1)
    maps = small.predict(images[40:]).maps
    assert maps[0].shape == (40, 40)
    assert np.allclose(np.sort([one.max() for one in maps]), small.heat_range.peaks.scores, atol=0)


def test_evaluate_tells_the_realised_share_of_outlined_images(fitted):
    from dracones.detectors import evaluate

    images, _ = anomalies(6)
    fresh = normals(50, seed=11)
    found = evaluate(fitted, fresh, images).outlined
    peaks = np.array([one.max() for one in fitted.predict(fresh).maps])
    assert found.normal.count == (peaks > fitted.heat_range.threshold).sum()
    assert (found.normal.total, found.anomalous.count) == (50, 6)
    assert found.promise.rate == 0.05
    assert "images with an outline" in found.promise.words
    assert evaluate(fitted, normals(60, seed=7), images).outlined.promise is None


@pytest.fixture
def on_disk(fitted, tmp_path):
    images, mask = anomalies(4)
    for i, image in enumerate(images):
        (tmp_path / "parts").mkdir(exist_ok=True)
        Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(tmp_path / "parts" / f"{i}.png")
    fitted.save(tmp_path / "model.safetensors")
    return tmp_path, mask.numpy()


def test_score_writes_masks_and_regions_that_say_the_same(on_disk, monkeypatch, capsys):
    import csv
    import sys

    from dracones.cli import main

    root, mask = on_disk
    verb = ["score", root / "model.safetensors", root / "parts", "--masks", root / "masks", "--regions"]
    for table in ("regions.csv", "regions.jsonl"):
        monkeypatch.setattr(sys, "argv", ["dracones", *map(str, [*verb, root / table])])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err
    rows = list(csv.DictReader((root / "regions.csv").open()))
    lines = [json.loads(line) for line in (root / "regions.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [line["path"] for line in lines]
    for i in range(4):
        marked = np.asarray(Image.open(root / "masks" / f"{i}_mask.png"))
        assert set(np.unique(marked)) == {0, 255}
        areas = [int(row["area"]) for row in rows if row["path"] == f"{i}.png"]
        assert sum(areas) == (marked > 0).sum()
        assert (marked > 0)[mask].mean() > 0.5
    assert "at most 5.00% of normal images" in capsys.readouterr().err


def test_without_a_promise_of_pixels_masks_are_refused(fitted, on_disk, monkeypatch, capsys):
    import sys

    from dracones.cli import main

    root, _ = on_disk
    few = dracones.load(root / "model.safetensors").calibrate(false_alarm_rate=0.05)
    few.know(few.record.seen(few.calibration, few.heat_range.at(0.001)))
    few.save(root / "few.safetensors")
    monkeypatch.setattr(
        sys, "argv", ["dracones", "score", *map(str, [root / "few.safetensors", root / "parts", "--masks", root / "m"])]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "promises nothing of pixels" in capsys.readouterr().err
