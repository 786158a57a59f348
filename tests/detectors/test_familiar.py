"""Images that a detector has met: the same content is known however it comes, and promises are not made on it."""

import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.calibration import Conformal, Met, TooFewScores, coarseness, judge_promise, standing_apart
from dracones.detectors import evaluate
from dracones.detectors.familiar import digests, first_of_each
from dracones.detectors.splitting import cut, groups_of, split
from dracones.images import open_images

FAST = {"rule": "typicality", "epochs": 1, "density": {"steps": 1, "hidden": 4}}


def normal(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 120, (count, 8, 8), dtype=np.uint8)


def fit(data, **options):
    return dracones.create("glow", **FAST, **options).fit(data)


@pytest.fixture(scope="module")
def fitted():
    return fit(normal(60), calibration_share=0)


def test_content_is_known_however_it_comes(tmp_path):
    pixels = normal(1)[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.tif")
    Image.fromarray(np.stack([pixels] * 3, axis=2)).save(tmp_path / "c.bmp")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "d.png")
    Image.fromarray(pixels[::-1]).save(tmp_path / "e.png")
    (tmp_path / "f.png").write_bytes(b"no image")
    found = digests(open_images(tmp_path))
    assert len(set(found[:4].tolist())) == 1
    assert found[0] == digests(open_images(torch.from_numpy(pixels)[None, None] / 255))[0]
    assert found[4] not in (0, found[0])
    assert found[5] == 0
    assert first_of_each(found).tolist() == [0, 4, 5]


def test_met_is_bounded_and_estimates_shares():
    rng = np.random.default_rng(0)
    many = rng.integers(1, 2**63, 200_000, dtype=np.uint64)
    met = Met.of(many)
    assert len(met.kept) == 2**16
    assert np.array_equal(Met.from_text(met.text()).kept, met.kept)
    assert met.share(many[:5000]) == 1
    half = np.concatenate([many[:5000], rng.integers(1, 2**63, 5000, dtype=np.uint64)])
    assert met.share(half) == pytest.approx(0.5, abs=0.05)
    assert not Met.from_text(None).holds(many).any()


def test_the_images_of_the_fit_set_no_threshold(fitted):
    with pytest.raises(ValueError, match=r"all 60 images of .* learnt from"):
        fitted.calibrate(normal(60), false_alarm_rate=0.1)
    with pytest.raises(ValueError, match=r"50 of 60 images of .* learnt from"):
        fitted.calibrate(np.concatenate([normal(50), normal(10, seed=1)]), false_alarm_rate=0.1)


def test_some_learnt_images_are_left_out_with_their_count(fitted):
    mixed = np.concatenate([normal(20), normal(40, seed=1)])
    with pytest.warns(RuntimeWarning, match="20 of 60 images .* learnt from"):
        fitted.calibrate(mixed, false_alarm_rate=0.1)
    assert len(fitted.calibration) == 40


def test_the_file_remembers_what_was_learnt(fitted, tmp_path):
    loaded = dracones.load(fitted.save(tmp_path / "m.safetensors"))
    with pytest.raises(ValueError, match="all 60 images"):
        loaded.calibrate(normal(60), false_alarm_rate=0.1)


def test_copies_count_once(fitted):
    with pytest.warns(RuntimeWarning, match="400 of 500 .* 100 distinct"):
        fitted.calibrate(np.tile(normal(100, seed=1), (5, 1, 1)), false_alarm_rate=0.1)
    assert len(fitted.calibration) == 100
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(TooFewScores, match=r"at least 99 .* got 3 distinct ones \(117 are"),
    ):
        fitted.calibrate(np.tile(normal(3, seed=1), (40, 1, 1)), false_alarm_rate=0.01)


def test_too_few_are_refused_before_anything_is_read(fitted, monkeypatch):
    monkeypatch.setattr("dracones.detectors.familiar.digests", lambda *_: pytest.fail("images were read"))
    with pytest.raises(TooFewScores, match="at least 999"):
        fitted.calibrate(normal(50, seed=1), false_alarm_rate=0.001)


def test_a_guard_that_learns_nothing_from_images_may_calibrate_on_them(tiny):
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    guard = dracones.create("energy", classifier=network).fit(images)
    guard.calibrate(images, false_alarm_rate=0.1)
    assert len(guard.calibration) == 40


def test_normal_images_that_were_learnt_judge_nothing(fitted):
    odd = normal(10, seed=5) + np.uint8(120)
    with pytest.raises(ValueError, match=r"all 60 images .* cannot judge it"):
        evaluate(fitted, normal(60), odd)
    with pytest.warns(RuntimeWarning, match="10 of 40"):
        found = evaluate(fitted, np.concatenate([normal(10), normal(30, seed=1)]), odd)
    assert found.counts["normal"] == 30


def test_without_copies_the_split_is_the_random_one_of_old():
    for count, validation, calibration, seed in ((10, 0.1, 0.1, 0), (37, 0.1, 0, 3), (200, 0.25, 0.3, 1), (9, 0, 0, 0)):
        images = open_images(torch.zeros(count, 1, 2, 2))
        parts = split(images, validation, calibration, seed)
        shares = [share for share in (1 - validation - calibration, validation, calibration) if share > 0]
        found = [part.names for part in (parts.train, parts.validation, parts.calibration) if len(part)]
        assert found == [part.names for part in images.split(shares, seed=seed)]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_on_one_side_and_nothing_is_lost(seed):
    groups = np.random.default_rng(seed).integers(0, 30, 300)
    _, groups = np.unique(groups, return_inverse=True)
    parts = cut(groups, 0.2, 0.2, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))
    sides = [set(groups[part].tolist()) for part in parts]
    assert sum(len(side) for side in sides) == len(set().union(*sides))
    assert len(parts.calibration) == pytest.approx(60, abs=20)
    assert all(np.array_equal(a, b) for a, b in zip(parts, cut(groups, 0.2, 0.2, seed), strict=True))


def test_a_copy_in_another_folder_joins_both():
    names = ["a/1", "a/2", "b/1", "c/1", "d/1"]
    assert groups_of(names, np.array([5, 6, 5, 0, 0], dtype=np.uint64), "folder").tolist() == [0, 0, 0, 1, 2]
    with pytest.raises(ValueError, match="puts all 2 images in one group"):
        groups_of(["1.png", "2.png"], None, "folder")
    with pytest.raises(ValueError, match="found in none of the 2 names"):
        groups_of(["1.png", "2.png"], None, "film_(.*)_")
    with pytest.raises(ValueError, match="no regular expression"):
        dracones.create("glow", group_by="(")


def test_links_and_copies_in_one_folder_do_not_leak(tmp_path):
    for i, pixels in enumerate(normal(40)):
        first = tmp_path / f"{i:02}_00.png"
        Image.fromarray(pixels).save(first)
        for again in range(1, 5):
            target = tmp_path / f"{i:02}_{again:02}.png"
            os.link(first, target) if again % 2 else shutil.copy(first, target)
    with pytest.warns(RuntimeWarning, match="160 of 200 .* copies"):
        detector = fit(str(tmp_path), calibration_share=0.2, false_alarm_rate=0.2)
    assert len(detector.calibration) == 8, "a fifth of 40 pictures, each once"
    record = detector.fitted()
    assert not np.isin(record.calibrated.kept, record.learnt.kept).any()
    assert len(record.calibrated.kept) + len(record.learnt.kept) == 40


def test_group_by_keeps_films_together(tmp_path):
    for film in range(10):
        (tmp_path / f"film{film}").mkdir()
        for i, pixels in enumerate(normal(6, seed=film)):
            Image.fromarray(pixels).save(tmp_path / f"film{film}" / f"{i}.png")
    detector = fit(str(tmp_path), group_by="folder", false_alarm_rate=0.2)
    assert detector.provenance["images"] == {"train": 48, "validation": 6, "calibration": 6, "skipped": 0}


def test_infinite_scores_are_refused_by_name(fitted, monkeypatch):
    with pytest.raises(ValueError, match="1 of 2 are not finite"):
        Conformal().fit([1.0, np.inf])
    forward = fitted.method.forward

    def broken(images, host=None):
        scores = forward(images, host)
        scores.image[3] = torch.inf
        return scores

    monkeypatch.setattr(fitted.method, "forward", broken)
    with pytest.raises(ValueError, match=r"1 of 30 calibration images have scores that are not finite: .*\[3\]"):
        fitted.calibrate(normal(30, seed=9), false_alarm_rate=0.1)


def test_scores_that_stand_apart_are_counted():
    rng = np.random.default_rng(0)
    assert sum(standing_apart(rng.normal(size=100)) > 0 for _ in range(300)) == 0
    assert standing_apart(np.r_[rng.normal(size=95), rng.normal(20, 1, size=5)]) == 5
    assert standing_apart(np.zeros(50)) == standing_apart([1.0]) == 0


def test_a_kept_promise_is_seldom_called_broken_and_a_broken_one_is():
    rng = np.random.default_rng(0)
    states = [judge_promise(Conformal().fit(rng.normal(size=99)), rng.normal(size=150), 0.05).state for _ in range(400)]
    assert states.count("broken") <= 10, "1 % at most, of 400"
    assert states.count("kept") > 340
    broken = judge_promise(Conformal().fit(rng.normal(size=199)), rng.normal(1.2, 1, size=150), 0.05)
    assert (broken.state, broken.rate) == ("broken", 0.05)
    assert "The promise of 5.00% false alarms is broken" in broken.words
    assert broken.realised.low > 0.05
    shifted = judge_promise(Conformal().fit(rng.uniform(size=400)), rng.uniform(0.3, 0.94, size=300), 0.05)
    assert shifted.state == "shifted"
    with_confidence = judge_promise(Conformal().fit(rng.normal(size=400)), rng.normal(size=200), 0.05, 0.95)
    assert with_confidence.state in ("kept", "shifted")


def test_one_image_that_sets_the_threshold_is_said():
    assert "p = 1/20 = 0.05" in coarseness(Conformal().fit(range(19)), 0.05)
    assert coarseness(Conformal().fit(range(39)), 0.05) is None


def test_evaluation_says_what_became_of_the_promise(tmp_path):
    detector = fit(normal(60), calibration_share=0).calibrate(normal(99, seed=1), false_alarm_rate=0.05)
    for kind, shift in (("dent", 0), ("bright", 130)):
        (tmp_path / kind).mkdir()
        for i, pixels in enumerate(normal(10, seed=7 + shift)):
            Image.fromarray(pixels + np.uint8(shift)).save(tmp_path / kind / f"{i}.png")
    found = evaluate(detector, normal(80, seed=2), str(tmp_path))
    told = found.to_json()
    assert told["promise"]["state"] in ("kept", "shifted")
    assert set(told["kinds"]) == {"dent", "bright"}
    assert told["kinds"]["bright"]["total"] == 10
    assert told["alarms"]["normal"]["low"] <= told["alarms"]["normal"]["value"] <= told["alarms"]["normal"]["high"]
    broken = evaluate(detector, normal(80, seed=2) + np.uint8(100), str(tmp_path))
    assert broken.promise.state == "broken"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = evaluate(detector, normal(99, seed=1), str(tmp_path))
    assert same.promise is None, "images that set the threshold do not test it"
    assert "99 of 99 normal images set the threshold themselves" in same.notes[0]


def test_frames_of_one_scene_are_said_and_group_by_silences(tmp_path):
    generator = np.random.default_rng(0)
    for scene in range(12):
        coarse = generator.integers(0, 255, (8, 8), dtype=np.uint8)
        (tmp_path / f"scene{scene}").mkdir()
        for frame in range(3):
            picture = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
            moved = np.clip(np.asarray(picture).astype(int) + frame, 0, 255).astype(np.uint8)
            Image.fromarray(moved).save(tmp_path / f"scene{scene}" / f"{frame}.png")
    options = {**FAST, "size": (8, 8), "validation_share": 0.2, "calibration_share": 0.2}
    with pytest.warns(RuntimeWarning, match=r"36 of 36 images .* look like another one"):
        dracones.create("glow", **options).fit(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        dracones.create("glow", **options, group_by="folder").fit(tmp_path)


def test_parts_that_all_lie_alike_are_no_scene(tmp_path):
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (8, 8), dtype=np.uint8)
    for i in range(20):
        picture = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
        noisy = np.clip(picture + generator.integers(-3, 4, picture.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / f"{i}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        dracones.create("glow", **FAST, size=(8, 8)).fit(tmp_path)
