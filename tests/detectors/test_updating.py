"""A model that takes in further good images: what learns on is what a fit on all would be, and the promise is anew."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.detectors import update
from feature_case import SMALL, anomalies, normals

SHARES = {"validation_share": 0.0, "calibration_share": 0.0}


@pytest.fixture(scope="module")
def padim():
    return dracones.create("padim", **SMALL, **SHARES, dimensions=20).fit(normals(30))


@pytest.fixture(scope="module")
def patchcore():
    detector = dracones.create("patchcore", **SMALL, **SHARES, memory_share=0.02).fit(normals(30))
    return detector.calibrate(normals(60, seed=7), false_alarm_rate=0.05)


def test_gaussians_that_learnt_on_are_those_of_a_fit_on_all_images(padim, tmp_path):
    more = normals(25, seed=3)
    loaded = dracones.load(padim.save(tmp_path / "m.safetensors"))
    new = update(loaded, more, calibrate=normals(99, seed=5)).detector
    whole = dracones.create("padim", **SMALL, **SHARES, dimensions=20).fit(torch.cat([normals(30), more]))
    assert int(new.method.count) == int(whole.method.count) == 55
    (step,) = new.provenance["updates"]
    assert step["data_fingerprint"] == loaded.adopt(loaded.open(more)).fingerprint()
    assert step["from"] == padim.provenance["digest"]
    assert torch.allclose(new.method.mean, whole.method.mean, atol=1e-5)
    images = torch.cat([normals(6, seed=9), anomalies(6)[0]])
    before, after, asked = (one.predict(images).scores for one in (padim, new, whole))
    assert np.abs(after / asked - 1).max() < 2e-3
    assert np.abs(before / asked - 1).max() > 0.05, "the further images should matter"


def test_two_steps_are_as_good_as_one(padim):
    first, second = normals(12, seed=3), normals(13, seed=4)
    rest = normals(99, seed=5)
    steps = update(update(padim, first, calibrate=rest).detector, second, calibrate=rest).detector
    once = update(padim, torch.cat([first, second]), calibrate=rest).detector
    images = anomalies(6)[0]
    assert np.abs(steps.predict(images).scores / once.predict(images).scores - 1).max() < 2e-3
    assert [step["images"]["learnt"] for step in steps.provenance["updates"]] == [12, 13]


def test_a_memory_grows_by_its_share_and_knows_the_new_parts(patchcore):
    new_kind = 1 - normals(40, seed=3)
    with pytest.raises(ValueError, match="are called anomalous: another camera"):
        update(patchcore, new_kind)
    new, said = update(patchcore, new_kind, calibrate=1 - normals(60, seed=8), anyway=True)
    held, grown = len(patchcore.method.memory), len(new.method.memory)
    assert grown == held + round(0.02 * 40 * 16 * 16)
    assert f"of {held} that were held" in said[0]
    kept = (new.method.memory[:, None] == patchcore.method.memory[None]).all(dim=2).any(dim=1)
    assert 0 < kept.sum() < grown, "the memory is of old patches and new ones"
    fresh = 1 - normals(20, seed=12)
    assert patchcore.predict(fresh).is_anomaly.all()
    assert new.predict(fresh).is_anomaly.mean() < 0.3
    assert new.predict(anomalies(4)[0]).is_anomaly.all()


def test_the_promise_is_made_anew_from_images_that_nobody_learnt_from(patchcore):
    with pytest.raises(ValueError, match="learnt from"):
        update(patchcore, normals(40, seed=3), calibrate=normals(30))
    more = normals(40, seed=3)
    detector = dracones.create("patchcore", **{**SMALL, "memory_share": 0.02}).fit(normals(30))
    detector.calibrate(normals(60, seed=7), false_alarm_rate=0.2, pixel_rate=0.25)
    new = update(detector, more).detector
    assert len(new.calibration) == 4
    assert (new.false_alarm_rate, new.threshold) == (0.2, new.calibration.threshold(0.2))
    assert new.heat_range.rate == 0.25
    assert new.record.learnt.share(new.record.calibrated.kept) == 0
    few = update(patchcore, normals(40, seed=3)).detector
    assert few.threshold is None, "no image was kept aside"
    # what was learnt in either step can set no threshold
    with pytest.raises(ValueError, match="learnt from"):
        few.calibrate(more, false_alarm_rate=0.05)
    with pytest.raises(ValueError, match="learnt from"):
        few.calibrate(normals(30), false_alarm_rate=0.05)


def test_the_given_detector_stays_as_it_was(patchcore):
    memory, record = patchcore.method.memory.clone(), patchcore.record
    update(patchcore, normals(20, seed=3))
    assert torch.equal(patchcore.method.memory, memory)
    assert patchcore.record is record


def test_images_that_were_learnt_from_teach_nothing_new(patchcore):
    with pytest.raises(ValueError, match="cannot teach anything new"):
        update(patchcore, normals(30))
    mixed = torch.cat([normals(30)[:3], normals(20, seed=3), normals(20, seed=3)[:2]])
    with pytest.warns(RuntimeWarning) as warned:
        step = update(patchcore, mixed).detector.provenance["updates"][0]
    assert step["images"] == {"learnt": 22, "calibration": 0, "known": 3}
    said = " ".join(str(one.message) for one in warned)
    assert "3 of 25 images" in said
    assert "2 of 22 images" in said


def test_images_of_another_size_are_refused(patchcore):
    with pytest.raises(ValueError, match=r"are of 3x48x48 .*, and those of the fit of 3x64x64"):
        update(patchcore, normals(20, side=48, seed=3))


def test_what_is_trained_as_a_whole_is_refused_with_the_way_out():
    glow = dracones.create("glow", epochs=1, density={"steps": 1, "hidden": 4}).fit(torch.rand(40, 1, 8, 8))
    with pytest.raises(TypeError, match=r"glow cannot learn on: it is trained as a whole.*calibrate"):
        update(glow, torch.rand(20, 1, 8, 8))


def test_a_gaussian_without_its_count_says_so(padim):
    from copy import deepcopy

    old = deepcopy(padim)
    old.method.count = None
    with pytest.raises(ValueError, match="does not say how many images"):
        update(old, normals(20, seed=3))


def test_an_ensemble_learns_on_where_its_witnesses_can():
    options = {**SMALL, "witnesses": ("whole", "place", "patch"), "scales": 1, "made_defects": 20}
    detector = dracones.create("ensemble", **options).fit(normals(40))
    new, said = update(detector, normals(40, seed=3))
    assert "embedding_flow: the Gaussian of" in said[0]
    assert "padim: the Gaussians of" in said[1]
    assert "patchcore:" in said[2]
    (step,) = new.provenance["updates"]
    assert f"from {round(0.2 * 40)} of the new images, learnt from last" in said[3]
    whole, place, _ = new.method.witnesses.values()
    before = detector.provenance["images"]
    assert int(whole.count) == int(place.count) == before["train"] + before["validation"] + step["images"]["learnt"]
    for (name, before), after in zip(
        detector.method.state_dict().items(), new.method.state_dict().values(), strict=True
    ):
        same = before.shape == after.shape and torch.equal(before, after)
        changed = name in ("centre", "spread", "map_centre", "map_spread", "weights") or name.startswith(
            (
                "witnesses.whole.count",
                "witnesses.whole.whitening",
                "witnesses.place.mean",
                "witnesses.place.whitening",
                "witnesses.place.count",
                "witnesses.patch.memory",
            )
        )
        assert same != changed, name
    assert new.predict(anomalies(4)[0]).scores.min() > new.predict(normals(8, seed=9)).scores.max()


def test_the_verb_writes_a_new_model_that_says_where_it_comes_from(patchcore, tmp_path, monkeypatch, capsys):
    from dracones.cli import main

    for folder, images in (("more", normals(20, seed=3)), ("rest", normals(30, seed=8))):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images):
            pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    patchcore.save(tmp_path / "old.safetensors")
    before = (tmp_path / "old.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path)
    words = ["update", "old.safetensors", "more", "--calibrate", "rest", "-o", "new.safetensors", "--json"]
    monkeypatch.setattr(sys, "argv", ["dracones", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    told = json.loads(out)
    new = dracones.load(tmp_path / "new.safetensors")
    assert told["update"]["from"] == patchcore.provenance["digest"] != told["digest"] == new.provenance["digest"]
    assert told["calibration_images"] == 30
    assert new.provenance["updates"][0]["images"]["learnt"] == 20
    assert (tmp_path / "old.safetensors").read_bytes() == before
