"""A promise for each group: thresholds of their own, kept in the file, refused where nothing was promised."""

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.calibration import Groups, TooFewScores, judge_promise
from dracones.calibration.groups import check_counts
from dracones.detectors import evaluate, read_record, verify
from dracones.detectors.judge import Judge
from dracones.files import storage

FAST = {"rule": "typicality", "epochs": 1, "density": {"steps": 1, "hidden": 4}, "calibration_share": 0.0}


def pictures(count, low, high, seed):
    return np.random.default_rng(seed).integers(low, high, (count, 8, 8), dtype=np.uint8)


def folder(root, **groups):
    """Images by group, each in a folder: of few levels ("calm") or of many ("rich")."""
    for name, (count, low, high, seed) in groups.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(pictures(count, low, high, seed)):
            Image.fromarray(image).save(root / name / f"{i:03}.png")
    return str(root)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("groups")
    folder(root / "more", calm=(40, 100, 115, 1), rich=(40, 90, 130, 2))
    folder(root / "new", calm=(30, 100, 115, 3), rich=(30, 90, 130, 4))
    folder(root / "odd", calm=(5, 0, 255, 5), rich=(5, 0, 255, 6))
    folder(root / "strange", clam=(3, 100, 115, 7), rich=(1, 90, 130, 8))
    return root


@pytest.fixture(scope="module")
def plain():
    return dracones.create("glow", **FAST).fit(pictures(60, 95, 120, 0))


@pytest.fixture
def detector(plain, place):
    fresh = dracones.Detector(plain.method)
    fresh.config = plain.config
    fresh.know(plain.fitted())
    return fresh.calibrate(str(place / "more"), false_alarm_rate=0.05, groups="folder")


def test_each_group_has_the_threshold_of_its_own_images(detector, plain, place):
    assert detector.threshold is None
    assert detector.false_alarm_rate == 0.05
    assert detector.groups.names == ("calm", "rich")
    for name in detector.groups.names:
        alone = dracones.Detector(plain.method)
        alone.config = plain.config
        alone.know(plain.fitted())
        alone.calibrate(str(place / "more" / name), false_alarm_rate=0.05)
        assert detector.groups.thresholds[name] == alone.threshold
        expected = alone.predict(str(place / "new" / name))
        found = detector.predict(str(place / "new"))
        mine = [i for i, group in enumerate(found.groups) if group == name]
        np.testing.assert_array_equal(found.p_values[mine], expected.p_values)
        np.testing.assert_array_equal(found.is_anomaly[mine], expected.is_anomaly)
    low, high = detector.groups.thresholds.values()
    assert high > low + 1  # one threshold for both would be too high for one of them


def test_verdicts_name_their_group_in_any_order_and_batch(detector, place):
    collection = dracones.images.open_images(str(place / "new"))
    order = np.random.default_rng(0).permutation(len(collection))
    one = {v.path: v for v in detector.iterate(collection, batch_size=7)}
    other = {v.path: v for v in detector.iterate(collection.subset(order), batch_size=32)}
    assert one.keys() == other.keys()
    for path, verdict in one.items():
        assert verdict.group == path.split("/")[0]
        assert (verdict.p_value, verdict.is_anomaly) == (other[path].p_value, other[path].is_anomaly)


def test_what_cannot_be_read_moves_no_group(detector, place, tmp_path):
    folder(tmp_path / "mixed", calm=(3, 100, 115, 3), rich=(3, 90, 130, 4))
    (tmp_path / "mixed" / "calm" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    found = detector.predict(str(tmp_path / "mixed"))
    assert found.groups == ("calm", "calm", "rich", "rich", "rich")
    whole = {v.path: v.p_value for v in detector.predict(str(place / "new"))}
    assert [v.p_value for v in found] == [whole[v.path] for v in found]


def test_a_file_keeps_the_groups(detector, place, tmp_path):
    path = detector.save(tmp_path / "m.safetensors")
    loaded = dracones.load(path)
    before, after = detector.predict(str(place / "new")), loaded.predict(str(place / "new"))
    np.testing.assert_array_equal(before.p_values, after.p_values)
    np.testing.assert_array_equal(before.is_anomaly, after.is_anomaly)
    assert before.groups == after.groups
    assert read_record(path).groups.thresholds == detector.groups.thresholds
    checked = verify(path)
    assert checked.passed
    assert "at most 5.00% false alarms in each of 2 groups" in checked.checks[-1].detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header, tensors: header["calibration"]["groups"]["thresholds"].reverse(), "are not what the groups'"),
        (lambda header, tensors: header["calibration"]["groups"]["names"].reverse(), "each there once, in order"),
        (lambda header, tensors: header["calibration"]["groups"]["thresholds"].pop(), "1 thresholds for 2 groups"),
        (lambda header, tensors: header["calibration"].pop("groups"), "threshold and false_alarm_rate go together"),
        (lambda header, tensors: tensors.pop("calibration.owners"), "do not belong together"),
        (lambda header, tensors: tensors["calibration.owners"].fill_(0), "to each of 2 groups and no other"),
        (lambda header, tensors: header["calibration"].update(threshold=1.0), "one threshold beside those of groups"),
    ],
)
def test_a_file_whose_groups_do_not_fit_is_refused(detector, tmp_path, change, said):
    header, tensors = storage.read(detector.save(tmp_path / "m.safetensors"))
    change(header, tensors)
    storage.write(tmp_path / "changed.safetensors", header, tensors)
    with pytest.raises(ValueError, match=said):
        dracones.load(tmp_path / "changed.safetensors")


def test_a_file_without_groups_has_no_word_of_them(plain, tmp_path):
    header, tensors = storage.read(plain.save(tmp_path / "m.safetensors"))
    assert "groups" not in header["calibration"]
    assert "calibration.owners" not in tensors


def test_groups_without_a_promise_are_refused_by_name(detector, place):
    with pytest.raises(ValueError, match=r"3 of 4 images .* clam/000.png is of group 'clam', did you mean 'calm'\?"):
        detector.predict(str(place / "strange"))
    with pytest.raises(ValueError, match=r"0000?\.png|\[0\] is of group '\.'"):
        detector.predict(pictures(2, 90, 130, 0))
    found = detector.predict(pictures(2, 90, 130, 0), groups=["rich", "calm"])
    assert found.groups == ("rich", "calm")
    with pytest.raises(ValueError, match="expected one for each of 2 images, got 1"):
        detector.predict(pictures(2, 90, 130, 0), groups=["rich"])


def test_a_group_that_is_too_small_is_refused_with_the_needed_count(plain, place):
    keys = ["calm"] * 70 + ["few"] * 10
    with pytest.raises(TooFewScores, match=r"at least 19 .* got 10 in the smallest .*'few' has 10.*add 9 more"):
        plain.calibrate(str(place / "more"), false_alarm_rate=0.05, groups=keys)
    with pytest.raises(TooFewScores, match="'a' has 1, 'b' has 2"):
        check_counts({"a": 1, "b": 2, "c": 99}, 0.05, None)
    with pytest.raises(ValueError, match=r"40 of 80 images .* have no group, such as rich/000.png"):
        plain.calibrate(str(place / "more"), groups="calm")


def test_groups_from_a_list_have_to_be_named_again(plain, place, tmp_path):
    fresh = dracones.Detector(plain.method)
    fresh.config = plain.config
    fresh.know(plain.fitted())
    fresh.calibrate(str(place / "more"), false_alarm_rate=0.05, groups=["a", "b"] * 40)
    loaded = dracones.load(fresh.save(tmp_path / "m.safetensors"))
    with pytest.raises(ValueError, match=r"groups \(a, b\) were given by a table or a list"):
        loaded.predict(str(place / "new"))
    named = {f"calm/{i:03}.png": "a" for i in range(30)} | {f"rich/{i:03}.png": "b" for i in range(30)}
    assert loaded.predict(str(place / "new"), groups=named).groups == ("a",) * 30 + ("b",) * 30


def test_a_detector_without_groups_takes_none(plain, place):
    with pytest.raises(ValueError, match="one calibration for all images"):
        plain.predict(str(place / "new"), groups="folder")


def test_copies_and_learnt_images_leave_their_group(plain, tmp_path):
    """Of each group its own images count, whatever was left out before."""
    folder(tmp_path / "more", a=(25, 100, 115, 1), b=(25, 90, 130, 2))
    first = Image.open(tmp_path / "more" / "a" / "000.png")
    for i in range(3):
        first.save(tmp_path / "more" / "a" / f"copy{i}.png")
    fresh = dracones.Detector(plain.method)
    fresh.config = plain.config
    fresh.know(plain.fitted())
    with pytest.warns(RuntimeWarning, match="3 of 53 images .* are copies"):
        fresh.calibrate(str(tmp_path / "more"), false_alarm_rate=0.05, groups="folder")
    assert {name: len(each) for name, each in fresh.groups.calibrations.items()} == {"a": 25, "b": 25}
    np.testing.assert_array_equal(np.sort(fresh.groups.pooled().scores), fresh.calibration.scores)


def test_a_fit_calibrates_what_it_keeps_aside_by_groups(tmp_path):
    data = folder(tmp_path / "good", a=(70, 100, 115, 1), b=(70, 90, 130, 2))
    detector = dracones.create("glow", **{**FAST, "calibration_share": 0.4}, false_alarm_rate=0.05)
    detector.fit(data, groups="folder")
    assert sum(len(each) for each in detector.groups.calibrations.values()) == 56
    assert detector.groups.thresholds.keys() == {"a", "b"}
    few = dracones.create("glow", **{**FAST, "calibration_share": 0.2}, false_alarm_rate=0.05).fit(
        data, groups="folder"
    )
    assert few.groups.thresholds == {}
    assert few.threshold is None
    assert few.predict(data).is_anomaly is None
    assert few.predict(data).p_values is not None


def test_the_judge_is_the_groups_arithmetic():
    random = np.random.default_rng(0)
    keys = [str(name) for name in random.choice(["a", "b", "c"], 200)]
    apart = np.array([7.0 * "abc".index(key) for key in keys])
    groups = Groups.of(keys, random.integers(0, 30, 200) + apart).at(0.1)
    assert len(set(groups.thresholds.values())) == 3
    asked = random.integers(0, 40, 50).astype(float)
    of = [str(name) for name in random.choice(["a", "b", "c"], 50)]
    judge = Judge(groups.pooled(), None, groups)
    p_values, alarms = judge(torch.tensor(asked, dtype=torch.float32), torch.as_tensor(groups.places(of, of)))
    np.testing.assert_allclose(p_values.numpy(), groups.p_values(asked, of), rtol=1e-12)
    np.testing.assert_array_equal(alarms.numpy(), groups.is_anomalous(asked, of))
    assert judge(torch.tensor([1.0])) == (None, None)


def test_the_promise_holds_in_each_group_where_one_threshold_breaks_it():
    """Three groups of different laws; rates realised over 3,000 draws of calibrations of 99 a group, at 5 %."""
    random = np.random.default_rng(1)
    laws = {"narrow": 1.0, "usual": 2.0, "wide": 4.0}
    realised = {name: [] for name in laws}
    pooled = []
    for _ in range(3000):
        keys = [name for name in laws for _ in range(99)]
        scores = np.concatenate([scale * random.normal(size=99) for scale in laws.values()])
        groups = Groups.of(keys, scores).at(0.05)
        for name, scale in laws.items():
            realised[name].append(groups.is_anomalous([scale * random.normal()], [name])[0])
        pooled.append(4 * random.normal() > groups.pooled().threshold(0.05))
    for rates in realised.values():
        assert 0.035 < np.mean(rates) < 0.05 + 4 * (0.05 * 0.95 / 3000) ** 0.5
    assert np.mean(pooled) > 0.1


def test_an_export_is_refused_by_name(detector, tmp_path):
    with pytest.raises(ValueError, match="each group has its own threshold"):
        detector.export(tmp_path / "line.pt2")


def test_each_groups_promise_is_judged_on_its_own_images(detector, place, tmp_path):
    found = evaluate(detector, str(place / "new"), str(place / "odd"))
    assert found.promise is None, "there is no threshold for all"
    assert set(found.groups) == {"calm", "rich"}
    for name, promise in found.groups.items():
        scores = found.normal.scores[np.asarray(found.normal.groups) == name]
        assert promise == judge_promise(detector.groups.calibrations[name], scores, 0.05, None, coverage=0.95)
        assert promise.images == 30
    folder(tmp_path / "some", rich=(10, 90, 130, 9))
    found = evaluate(detector, str(tmp_path / "some"), str(place / "odd"), groups="folder", confidence=0.5)
    assert list(found.groups) == ["rich"]
    assert "No normal image tests the promise of calm." in found.notes
    wide = judge_promise(detector.groups.calibrations["rich"], found.normal.scores, 0.05, None, coverage=0.5)
    assert found.groups["rich"] == wide
