"""Confirmed images join a calibration only where the verdict did not choose them."""

import numpy as np
import pytest

import dracones
from dracones.calibration import Conformal, TooFewScores
from dracones.calibration.truncation import tail_of
from dracones.detectors import audit, recalibrate
from dracones.detectors.auditing import audited
from dracones.detectors.familiar import digests
from dracones.images import open_images

FAST = {"rule": "typicality", "epochs": 1, "density": {"steps": 1, "hidden": 4}, "calibration_share": 0.0}


def pictures(count, seed, low=90, high=130):
    return np.random.default_rng(seed).integers(low, high, (count, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def old():
    detector = dracones.create("glow", **FAST).fit(pictures(60, 0))
    return detector.calibrate(pictures(60, 1), false_alarm_rate=0.05)


def test_the_coin_is_fair_nested_and_blind_to_names_and_kinds():
    found = np.random.default_rng(0).integers(1, 2**63, 200_000, dtype=np.uint64)
    tenth, half = audited(found, 0.1), audited(found, 0.5)
    assert abs(tenth.mean() - 0.1) < 4 * (0.09 / 200_000) ** 0.5
    assert half[tenth].all()
    assert abs(tenth[found < np.median(found)].mean() - 0.1) < 4 * (0.09 / 100_000) ** 0.5  # not the digest's own order
    assert audited(np.array([0, 5], dtype=np.uint64), 1).tolist() == [False, True]
    images = pictures(50, 2)
    chosen = audit(open_images(images), 0.3)
    assert 5 < chosen.sum() < 30
    np.testing.assert_array_equal(audit(open_images(images[::-1].copy()), 0.3)[::-1], chosen)
    np.testing.assert_array_equal(audit(open_images(images[:, :, :, None].repeat(3, 3)), 0.3), chosen)
    for share in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="audit_share: expected a share above 0 and at most 1"):
            audit(open_images(images), share)


def test_confirmed_images_join_and_the_old_detector_stays(old):
    before = old.calibration.scores.copy(), old.threshold
    found = recalibrate(old, pictures(80, 3), audit_share=1)
    assert (found.joined, found.kept) == (80, 60)
    new = found.detector
    expected = np.sort(np.concatenate([before[0], old.predict(pictures(80, 3)).scores]))
    np.testing.assert_array_equal(new.calibration.scores, expected)
    assert new.threshold == Conformal().fit(expected).threshold(0.05)
    assert (old.calibration.scores.tolist(), old.threshold) == (before[0].tolist(), before[1])
    assert found.tails[""].above == int((old.predict(pictures(80, 3)).scores > old.threshold).sum())


def test_only_the_audit_sample_joins(old):
    images = pictures(200, 4)
    inside = audit(open_images(images), 0.4)
    found = recalibrate(old, images, audit_share=0.4)
    assert found.joined == inside.sum()
    assert found.left_out["not of the audit sample"] == 200 - inside.sum()
    np.testing.assert_array_equal(
        found.detector.calibration.scores,
        np.sort(np.concatenate([old.calibration.scores, old.predict(images[inside]).scores])),
    )


def test_copies_learnt_and_calibrated_images_stay_out(old):
    mixed = np.concatenate([pictures(40, 5), pictures(40, 5)[:7], pictures(60, 1)[:9], pictures(60, 0)[:5]])
    with pytest.warns(RuntimeWarning, match="5 of 61 images .* learnt from"):
        found = recalibrate(old, mixed, audit_share=1)
    assert found.joined == 40
    assert found.left_out == {
        "not read": 0,
        "learnt from": 5,
        "not of the audit sample": 0,
        "copies": 7,
        "in the old calibration": 9,
    }
    again = recalibrate(found.detector, np.concatenate([pictures(40, 5), pictures(30, 6)]), audit_share=1)
    assert (again.joined, again.kept, again.left_out["in the old calibration"]) == (30, 100, 40)


def test_provenance_says_from_what(old, tmp_path):
    old.save(tmp_path / "old.safetensors")
    found = recalibrate(dracones.load(tmp_path / "old.safetensors"), pictures(80, 3), audit_share=1)
    again = recalibrate(found.detector, pictures(30, 7), audit_share=1).detector
    loaded = dracones.load(again.save(tmp_path / "new.safetensors"))
    first, second = loaded.provenance["recalibrated"]
    assert first["from"] == old.provenance["digest"]
    assert (first["old_images"], first["joined"], first["audit_share"], first["with_old"]) == (60, 80, 1, True)
    assert (second["old_images"], second["joined"]) == (140, 30)
    assert first["old_threshold"] == old.threshold
    assert loaded.threshold == again.threshold
    np.testing.assert_array_equal(np.sort(loaded.record.calibrated.kept), np.sort(again.record.calibrated.kept))
    assert len(loaded.record.calibrated.kept) == 170


def test_images_that_passed_are_refused(old):
    many = pictures(400, 8)
    passed = many[old.predict(many).scores <= old.threshold]
    with pytest.raises(ValueError, match=r"0 of \d+ score above the old threshold, .* false alarms .* are missing"):
        recalibrate(old, passed, audit_share=1)
    few = passed[:25]
    with pytest.warns(RuntimeWarning, match="too few to tell whether false alarms are missing"):
        recalibrate(old, few, audit_share=1)


def test_images_of_another_kind_do_not_join_the_old(old):
    other = pictures(150, 9, 80, 140)
    with pytest.raises(ValueError, match=r"scores are higher; .* leave the old ones out"):
        recalibrate(old, other, audit_share=1)
    found = recalibrate(old, other, audit_share=1, with_old=False)
    assert (found.joined, found.kept) == (150, 0)
    np.testing.assert_array_equal(found.detector.calibration.scores, np.sort(old.predict(other).scores))
    assert found.detector.threshold > old.threshold


def test_the_needed_count_counts_what_joins(old):
    with pytest.raises(TooFewScores, match=r"at least 99 .*, got 90 \(60 old, 30 confirmed\); add 9 more"):
        recalibrate(old, pictures(30, 10), audit_share=1, false_alarm_rate=0.01)
    assert recalibrate(old, pictures(39, 10), audit_share=1, false_alarm_rate=0.01).detector.false_alarm_rate == 0.01
    with pytest.raises(TooFewScores, match=r"got 10 \(0 old, 10 confirmed\)"):
        recalibrate(old, pictures(10, 10), audit_share=1, with_old=False)
    images = pictures(30, 11)
    with pytest.raises(ValueError, match=r"none of \d+ images .* can join the calibration .*not of the audit sample"):
        recalibrate(old, images[~audited(digests(open_images(images)), 0.2)], audit_share=0.2)


def test_what_has_no_calibration_is_refused():
    bare = dracones.create("glow", **FAST).fit(pictures(20, 0))
    with pytest.raises(ValueError, match="no calibration that images could join"):
        recalibrate(bare, pictures(30, 3), audit_share=1)


@pytest.fixture(scope="module")
def grouped(old):
    own = dracones.Detector(old.method)
    own.config = old.config
    own.know(old.fitted())
    calm, rich = pictures(60, 20, 100, 115), pictures(60, 21)
    return own.calibrate(np.concatenate([calm, rich]), false_alarm_rate=0.05, groups=["calm"] * 60 + ["rich"] * 60)


def test_each_group_is_calibrated_with_its_own_confirmed_images(grouped):
    images, groups = np.concatenate([pictures(30, 22), pictures(50, 23, 100, 115)]), ["rich"] * 30 + ["calm"] * 50
    found = recalibrate(grouped, images, audit_share=1, groups=groups)
    assert (found.joined, found.kept) == (80, 120)
    scores = grouped.predict(images, groups=groups).scores
    for name, mine in (("calm", scores[30:]), ("rich", scores[:30])):
        before = grouped.groups.calibrations[name]
        expected = np.sort(np.concatenate([before.scores, mine]))
        np.testing.assert_array_equal(found.detector.groups.calibrations[name].scores, expected)
        assert found.detector.groups.thresholds[name] == Conformal().fit(expected).threshold(0.05)
        assert found.tails[name].above == int((mine > grouped.groups.thresholds[name]).sum())
    assert found.detector.threshold is None
    assert len(found.detector.calibration) == 200


def test_a_group_of_which_nothing_was_confirmed_keeps_its_calibration(grouped):
    found = recalibrate(grouped, pictures(40, 24), audit_share=1, groups=["rich"] * 40).detector.groups
    np.testing.assert_array_equal(found.calibrations["calm"].scores, grouped.groups.calibrations["calm"].scores)
    assert found.thresholds["calm"] == grouped.groups.thresholds["calm"]
    with pytest.raises(TooFewScores, match="'calm' has 0"):
        recalibrate(grouped, pictures(40, 24), audit_share=1, with_old=False, groups=["rich"] * 40)


def test_groups_are_named_known_and_each_tested(grouped):
    with pytest.raises(ValueError, match="were given by a table or a list; say which each image is of"):
        recalibrate(grouped, pictures(40, 24), audit_share=1)
    with pytest.raises(ValueError, match=r"group 'rihc', did you mean 'rich'\?"):
        recalibrate(grouped, pictures(40, 24), audit_share=1, groups=["rihc"] * 40)
    images, groups = np.concatenate([pictures(40, 24), pictures(400, 25, 100, 115)]), ["rich"] * 40 + ["calm"] * 400
    low = grouped.predict(images, groups=groups)
    passed = [i for i in range(440) if i < 40 or not low.is_anomaly[i]]
    with pytest.raises(ValueError, match=r"group calm, .* the false alarms among the audited images are missing"):
        recalibrate(grouped, images[passed], audit_share=1, groups=[groups[i] for i in passed])
    with pytest.raises(ValueError, match="images of group calm are unlike the old calibration images"):
        recalibrate(grouped, pictures(60, 26), audit_share=1, groups=["rich"] * 10 + ["calm"] * 50)


def test_a_new_rate_or_the_old_one_with_its_confidence(old):
    sure = dracones.Detector(old.method)
    sure.config = old.config
    sure.know(old.fitted())
    sure.calibrate(pictures(60, 1), false_alarm_rate=0.05, confidence=0.9)
    found = recalibrate(sure, pictures(80, 3), audit_share=1).detector
    assert (found.record.false_alarm_rate, found.record.confidence) == (0.05, 0.9)
    assert found.threshold == found.calibration.threshold(0.05, 0.9)


def test_heat_of_both_joins():
    """Peaks of old and new maps, and the promise of pixels as it was."""
    detector = dracones.create("glow", **FAST, tile=(8, 8)).fit(pictures(40, 0))
    detector.calibrate(pictures(40, 1), false_alarm_rate=0.05, pixel_rate=0.1)
    found = recalibrate(detector, pictures(30, 2), audit_share=1).detector
    assert len(found.heat_range.peaks) == 70
    assert found.heat_range.rate == 0.1
    assert found.heat_range.threshold == found.heat_range.peaks.threshold(0.1)


def test_the_chance_of_a_tail_is_that_of_ranks():
    """Of sets that nothing was taken from, less than 1 % are called cut; of those that were cut, most."""
    # Of 19 old and 5 new scores the highest is an old one in 19 of 24 orders.
    assert tail_of(Conformal().fit(range(19)), 0.05, None, range(5)).chance == pytest.approx(19 / 24)
    random = np.random.default_rng(0)
    whole = cut = 0
    for _ in range(1000):
        old, new = Conformal().fit(random.normal(size=500)), random.normal(size=300)
        whole += tail_of(old, 0.05, None, new).state == "cut"
        cut += tail_of(old, 0.05, None, new[new <= old.threshold(0.05)]).state == "cut"
    assert whole <= 10 + 10
    assert cut > 990


def test_rounds_of_passed_images_break_the_promise_and_audits_keep_it():
    """Realised rates of the third round, over 400 lines of good images alone."""
    random = np.random.default_rng(1)
    naive, honest = [], []
    for _ in range(400):
        start = random.normal(size=299)
        thresholds = {"passed": Conformal().fit(start).threshold(0.05), "audit": Conformal().fit(start).threshold(0.05)}
        scores = start
        for _ in range(3):
            new = random.normal(size=299)
            thresholds["passed"] = Conformal().fit(new[new <= thresholds["passed"]]).threshold(0.05)
            scores = np.concatenate([scores, new])
            thresholds["audit"] = Conformal().fit(scores).threshold(0.05)
        probe = random.normal(size=200)
        naive.append((probe > thresholds["passed"]).mean())
        honest.append((probe > thresholds["audit"]).mean())
    assert np.mean(naive) > 0.15
    assert np.mean(honest) < 0.05 + 4 * np.std(honest) / 20
