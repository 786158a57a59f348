"""A region of interest: nothing outside of it can change what is learnt, a score, a map, a threshold or a metric."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dracones
from dracones.detectors import evaluate, sensitivity
from dracones.images import DEFECT_KINDS, open_images, with_defect, within
from feature_case import SMALL, anomalies, normals

ROI = torch.zeros(64, 64, dtype=torch.bool)
ROI[8:56, 20:60] = True


def elsewhere(images, seed):
    """The same images with noise outside the region."""
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(ROI, images, noise)


def fit(name, images, **options):
    return dracones.create(name, **{**SMALL, **options}).fit(images, roi=ROI)


@pytest.fixture(scope="module")
def fitted():
    detector = fit("patchcore", normals(40), memory_share=0.02)
    return detector.calibrate(normals(60, seed=7), false_alarm_rate=0.05)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("patchcore", {"memory_share": 0.02}),
        ("padim", {"dimensions": 20}),
        ("fastflow", {"epochs": 1, "steps": 2}),
        ("embedding_flow", {"epochs": 1}),
        ("ensemble", {"witnesses": ("whole", "patch"), "scales": 1, "made_defects": 20}),
    ],
)
def test_nothing_outside_changes_what_is_learnt_or_said(name, options):
    first, second = fit(name, normals(30), **options), fit(name, elsewhere(normals(30), 1), **options)
    for key, tensor in first.method.state_dict().items():
        assert torch.equal(tensor, second.method.state_dict()[key]), key
    images = anomalies(3)[0]
    one, other = first.predict(images), first.predict(elsewhere(images, 2))
    assert np.array_equal(one.scores, other.scores)
    for heat, again in zip(one.maps or (), other.maps or (), strict=True):
        assert np.array_equal(heat, again, equal_nan=True)
        assert np.array_equal(np.isnan(heat), ~ROI.numpy())
    bare = dracones.create(name, **{**SMALL, **options}).fit(normals(30))
    assert not np.array_equal(bare.predict(images).scores, bare.predict(elsewhere(images, 2)).scores)


def test_defects_inside_are_found_and_those_outside_are_not(fitted):
    inside, _ = anomalies(6)
    assert fitted.predict(inside).is_anomaly.all()
    outside = normals(6, seed=3)
    outside[:, :, :8] = torch.rand(6, 3, 8, 64, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(fitted.predict(outside).scores, fitted.predict(normals(6, seed=3)).scores)


def test_threshold_and_peaks_are_of_the_inside(fitted):
    maps = fitted.predict(normals(60, seed=7)).maps
    peaks = np.sort([np.nanmax(one) for one in maps])
    assert np.array_equal(peaks.astype(np.float64), fitted.heat_range.peaks.scores)


def test_images_that_differ_outside_alone_are_one_image(fitted):
    with pytest.raises(ValueError, match="learnt from"):
        fitted.calibrate(elsewhere(normals(40), 5), false_alarm_rate=0.05)
    with pytest.raises(ValueError, match="learnt from"):
        evaluate(fitted, elsewhere(normals(40), 5), anomalies(3)[0])


def test_it_is_saved_with_the_model_and_cannot_be_swapped(fitted, tmp_path):
    loaded = dracones.load(fitted.save(tmp_path / "m.safetensors"))
    images = anomalies(3)[0]
    assert np.array_equal(loaded.predict(elsewhere(images, 4)).scores, fitted.predict(images).scores)
    assert loaded.record.interest.is_of(fitted.record.interest)
    other = within(open_images(images), ~ROI, fitted.record.interest.fill)
    with pytest.raises(ValueError, match="not this detector's"):
        loaded.predict(other)
    with pytest.raises(ValueError, match="not this detector's"):
        loaded.open(images, roi=~ROI)
    plain = dracones.create("padim", **SMALL, dimensions=10).fit(normals(30))
    with pytest.raises(ValueError, match="fitted on whole images"):
        plain.open(images, roi=ROI)
    with pytest.raises(ValueError, match="knows no region of interest"):
        loaded.export(tmp_path / "m.onnx")


def test_bad_regions_are_refused_by_name(tmp_path):
    detector = dracones.create("padim", **SMALL)
    with pytest.raises(ValueError, match=r"48x64 pixels .* and the image 64x64"):
        detector.fit(normals(10), roi=torch.ones(48, 64))
    with pytest.raises(ValueError, match="region of interest is empty"):
        detector.fit(normals(10), roi=torch.zeros(64, 64))
    with pytest.raises(FileNotFoundError, match="no such region of interest"):
        detector.fit(normals(10), roi=tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"expected \[height, width\]"):
        detector.fit(normals(10), roi=torch.ones(3, 64, 64))


def test_pixel_metrics_are_of_the_inside(fitted):
    from dracones.metrics import evaluate_maps

    def masked(images, mask):
        from dracones.images.sources import ArraySource

        class Masked(ArraySource):
            has_masks = True

            def mask(self, index):
                del index
                return mask.numpy()

        levels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return open_images(Masked(levels, "masked"))

    images, mask = anomalies(4)
    everywhere = mask.clone()
    everywhere[:8] = True  # marked outside, where nothing counts
    normal = normals(8, seed=31)
    found = evaluate(fitted, normal, masked(images, everywhere)).pixel
    again = evaluate(fitted, normal, masked(images, mask)).pixel
    assert found["auroc"]["value"] == again["auroc"]["value"]
    predicted = fitted.predict(normal).maps, fitted.predict(masked(images, mask)).maps
    inside = ROI.numpy()
    rows = [heat[inside][None] for side in predicted for heat in side]
    truth = [np.zeros((1, inside.sum()), bool)] * 8 + [mask.numpy()[inside][None]] * 4
    assert found["auroc"]["value"] == pytest.approx(evaluate_maps(rows, truth)["auroc"]["value"], abs=1e-12)


def test_made_defects_lie_inside(fitted):
    found = sensitivity(fitted, normals(4, seed=20), sizes=(0.3,), contrasts=(1.0,), defects=2)
    assert all(not (defect.mask & ~ROI).any() for made in found.examples.values() for defect in made)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_a_made_defect_has_its_place_inside_however_small_that_is(kind):
    image, inside = normals(1)[0], torch.zeros(64, 64, dtype=torch.bool)
    inside[60:63, 2:5] = True
    for seed in range(5):
        made = with_defect(
            image, kind, size=0.1, inside=inside, donor=normals(2)[1], generator=torch.Generator().manual_seed(seed)
        )
        assert made.mask.any()
        assert not (made.mask & ~inside).any()
        assert torch.equal(made.image[:, ~inside], image[:, ~inside])
    with pytest.raises(ValueError, match="inside: no pixel is marked"):
        with_defect(image, kind, size=0.1, inside=~inside & inside, generator=torch.Generator())


@pytest.fixture
def folders(tmp_path):
    """Parts whose region is another in each image, and the regions, called like them."""
    for i, image in enumerate(normals(24)):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        for name in ("parts", "regions"):
            (tmp_path / name).mkdir(exist_ok=True)
        region = np.zeros((64, 64), np.uint8)
        region[i : i + 32, 16:48] = 255
        Image.fromarray(pixels).save(tmp_path / "parts" / f"{i}.png")
        Image.fromarray(region).save(tmp_path / "regions" / f"{i}.png")
    return tmp_path


def test_each_image_may_have_its_own_region(folders, tmp_path):
    detector = dracones.create("patchcore", **SMALL, memory_share=0.02).fit(folders / "parts", roi=folders / "regions")
    with pytest.raises(ValueError, match=r"give them \(roi=FOLDER\)"):
        detector.predict(folders / "parts")
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    found = loaded.predict(loaded.open(folders / "parts", roi=folders / "regions"))
    seen = ~np.isnan(found.maps[0])
    assert seen[:32, 16:48].all()
    assert seen.sum() == 32 * 32
    Image.new("L", (64, 64)).save(folders / "regions" / "3.png")
    Image.new("L", (64, 60), 255).save(folders / "regions" / "4.png")
    errors = loaded.predict(loaded.open(folders / "parts", roi=folders / "regions")).errors
    reasons = {item.name: item.reason for item in errors}
    assert set(reasons) == {"3.png", "4.png"}
    assert reasons["3.png"] == "its region of interest is empty"
    assert "60x64 pixels (height x width) and the image 64x64" in reasons["4.png"]
    (folders / "regions" / "5.png").unlink()
    with pytest.raises(ValueError, match=r"1 images have no region of interest .* 5\.png"):
        loaded.open(folders / "parts", roi=folders / "regions")


def test_no_image_left_is_said(folders):
    for path in (folders / "regions").iterdir():
        Image.new("L", (64, 64)).save(path)
    with pytest.raises(ValueError, match="no image of parts is left within its region of interest"):
        dracones.create("padim", **SMALL).fit(folders / "parts", roi=folders / "regions")


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """A verb, run in the folder of parts and regions."""
    from dracones.cli import main

    monkeypatch.chdir(folders)

    def call(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["dracones", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return out, err

    return call


@pytest.mark.usefixtures("folders")
def test_the_verbs_take_a_region(run):
    Image.fromarray(ROI.numpy().astype(np.uint8)).save("roi.png")
    options = [f"--set={key}={json.dumps(value)}" for key, value in {**SMALL, "dimensions": 10}.items()]
    run("fit", "padim", "parts", "-o", "m.safetensors", "--roi", "roi.png", *options)
    out, _ = run("score", "m.safetensors", "parts", "--maps", "maps", "--json")
    heat = np.load("maps/0.png.npy")
    assert np.array_equal(np.isnan(heat), ~ROI.numpy())
    same, _ = run("score", "m.safetensors", "parts", "--roi", "roi.png", "--json")
    assert json.loads(same)["images"] == json.loads(out)["images"]
    _, err = run("score", "m.safetensors", "parts", "--roi", "regions", code=2)
    assert "not this detector's" in err


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def judged(folders, run):
    """A category of 24 good and 6 odd images; the region of every second odd one leaves out what is odd."""
    odd, mask = anomalies(6)
    for kind, images in (("good", normals(24, seed=4)), ("board", odd)):
        for i, image in enumerate(images):
            png(folders / "set" / "test" / kind / f"{i}.png", (image.permute(1, 2, 0) * 255).round().byte().numpy())
            region = np.full((64, 64), 255, np.uint8)
            region[mask.numpy()] = 255 * (i % 2)
            png(folders / "regions_of_test" / kind / f"{i}.png", region)
    (folders / "set" / "train" / "good").mkdir(parents=True)
    for i in range(6):
        png(folders / "set" / "ground_truth" / "board" / f"{i}.png", mask.numpy().astype(np.uint8))
    options = [f"--set={key}={json.dumps(value)}" for key, value in {**SMALL, "memory_share": 0.02}.items()]
    options = [*options, "--set=calibration_share=0.3", "--false-alarm-rate", "0.2"]
    run("fit", "patchcore", "parts", "-o", "m.safetensors", "--roi", "regions", *options)
    return options


@pytest.mark.usefixtures("judged")
def test_each_image_has_its_own_region_in_evaluate_report_sensitivity_and_update(run):
    _, err = run("evaluate", "m.safetensors", "--category", "set", code=2)
    assert "each image has a region of its own; give them" in err
    out, _ = run("evaluate", "m.safetensors", "--category", "set", "--roi", "regions_of_test", "--json")
    found = json.loads(out)
    assert found["masked"] == 3
    told = "The masks of 3 of 6 anomalous images mark nothing inside the region of interest, e.g. board/0.png."
    assert told in found["notes"]
    sides = ["--normal", "set/test/good", "--anomalous", "set/test/board"]
    _, err = run("evaluate", "m.safetensors", *sides, "--roi", "regions_of_test", code=2)
    assert "is an image of both normal and anomalous" in err
    for word, kind in (("normal", "good"), ("anomalous", "board")):
        Path("both").mkdir(exist_ok=True)
        (Path("regions_of_test") / kind).rename(Path("both") / word)
    out, _ = run("report", "m.safetensors", *sides, "--roi", "both", "-o", "r.html", "--json")
    assert json.loads(out)["image"] == found["image"]
    made = ["--size", "0.3", "--contrast", "1", "--defects", "2", "--json"]
    out, _ = run("sensitivity", "m.safetensors", "set/test/good", "--roi", "both/normal", *made)
    assert json.loads(out)["good"]["total"] == 24
    words = ["update", "m.safetensors", "set/test/good", "-o", "n.safetensors", "--json"]
    out, _ = run(*words, "--anyway", "--roi", "both/normal")
    assert json.loads(out)["update"]["images"]["learnt"] > 0


@pytest.mark.usefixtures("judged")
def test_what_a_region_leaves_nothing_of_is_refused(run):
    for i in range(24):
        for folder in ("empty", "sides/normal", "sides/anomalous"):
            png(Path(folder) / f"{i}.png", np.zeros((64, 64), np.uint8))
    good = "set/test/good"
    for words in (
        ("sensitivity", "m.safetensors", good, "--roi", "empty"),
        ("update", "m.safetensors", good, "-o", "n.safetensors", "--roi", "empty"),
        ("evaluate", "m.safetensors", "--normal", good, "--anomalous", good, "--roi", "sides"),
        ("score", "m.safetensors", good, "--roi", "empty"),
    ):
        _, err = run(*words, code=2)
        assert "region of interest is empty" in err or "regions are empty" in err, (words, err)
    region = "regions_of_test/board/0.png"
    _, err = run("update", "m.safetensors", good, "-o", "n.safetensors", "--roi", region, code=2)
    assert "not this detector's" in err


def test_calibration_images_of_a_fit_bring_their_own_regions(run, judged):
    words = ["fit", "patchcore", "parts", "--calibrate", "set/test/good", "-o", "m.safetensors", *judged]
    _, err = run(*words, "--roi", "regions", code=2)
    assert "is an image of both good and calibrate" in err
    Path("of").mkdir()
    Path("regions").rename("of/good")
    Path("regions_of_test/good").rename("of/calibrate")
    out, _ = run(*words, "--roi", "of", "--json")
    assert json.loads(out)["calibration_images"] == 24
