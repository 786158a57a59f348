"""Fit, calibrate, predict, save and load, on a method small enough to work out by hand."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

import dracones
from dracones.detectors import Detector
from dracones.files import storage
from dracones.methods import Method, MethodConfig, MethodInfo, Scores, build, registry
from dracones.training import TrainingConfig


class BrightnessConfig(MethodConfig):
    power: float = Field(1.0, gt=0)
    training: TrainingConfig = TrainingConfig(epochs=40, batch_size=16, learning_rate=0.05)


class BrightnessMethod(Method):
    """Learns the mean image by gradient descent; score = mean |x - mean|^power; map = |x - mean|."""

    Config = BrightnessConfig
    info = MethodInfo("brightness", "A test", ("Nobody",), 2024, "none", "likelihood", gives=("score", "map"))

    def build(self, image_shape):
        self.mean = nn.Parameter(torch.rand(image_shape))
        self.register_buffer("seen", torch.empty(0))

    def training_loss(self, batch, *, generator=None):
        return ((batch - self.mean) ** 2).mean()

    def fit_statistics(self, context):
        self.seen = torch.arange(len(context.held_out), dtype=torch.float32)

    def forward(self, images, host=None):
        distance = (images - self.mean).abs() ** self.config.power
        return Scores(distance.mean(dim=(1, 2, 3)), distance.mean(dim=1))


def Brightness(**options):  # noqa: N802 (a detector by its method)
    return Detector(BrightnessMethod(**options))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.METHODS._entered, "brightness", BrightnessMethod)


def normal(count=200, seed=0):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 0.2


@pytest.fixture(scope="module")
def fitted():
    return Brightness().fit(normal())


def test_fit_cuts_disjoint_parts_and_calibrates_itself(fitted):
    assert fitted.provenance["images"] == {"train": 160, "validation": 20, "calibration": 20, "skipped": 0}
    assert len(fitted.calibration) == 20
    assert len(fitted.method.seen) == 20
    # 20 images cannot carry 1 %: no threshold rather than a wrong one
    assert fitted.threshold is None
    assert fitted.predict(normal(5)).is_anomaly is None


def test_trained_mean_is_the_mean(fitted):
    assert fitted.method.mean.detach().mean().item() == pytest.approx(0.1, abs=0.01)


def test_calibrated_verdicts_follow_the_threshold(fitted):
    fitted.calibrate(normal(300, seed=1), false_alarm_rate=0.05)
    calm, loud = fitted.predict(normal(200, seed=2)), fitted.predict(torch.ones(3, 1, 8, 8))
    assert loud.is_anomaly.all()
    assert loud.p_values.max() == pytest.approx(1 / 301)
    assert calm.is_anomaly.mean() < 0.12
    assert np.array_equal(calm.is_anomaly, calm.scores > fitted.threshold)
    assert np.array_equal(calm.is_anomaly, calm.p_values <= 0.05)


def test_a_score_at_the_threshold_is_no_anomaly(fitted):
    prediction = fitted.predict(normal(1, seed=4))
    kept = fitted.record
    fitted.know(replace(kept, threshold=float(prediction.scores[0])))
    assert not fitted.predict(normal(1, seed=4)).is_anomaly[0]
    fitted.know(kept)


def test_first_weights_follow_the_seed():
    means = []
    for seed in (1, 1, 2):
        detector = Brightness(seed=seed)
        build(detector.method, (1, 8, 8))
        means.append(detector.method.mean)
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])


def test_too_few_calibration_images_name_the_needed_count(fitted):
    with pytest.raises(ValueError, match="at least 999"):
        fitted.calibrate(normal(50), false_alarm_rate=0.001)


def test_scores_do_not_depend_on_the_batch(fitted):
    images = normal(7, seed=3)
    together = fitted.predict(images, batch_size=7).scores
    alone = np.concatenate([fitted.predict(image[None]).scores for image in images])
    assert np.array_equal(together, alone)


def test_maps_come_at_each_images_own_size(tmp_path):
    for name, size in (("a.png", (30, 20)), ("b.png", (16, 12))):
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(tmp_path / name)
    detector = Brightness(size=(8, 8), channels=1, epochs=1).fit(normal())
    prediction = detector.predict(str(tmp_path))
    assert [m.shape for m in prediction.maps] == [(20, 30), (12, 16)]
    assert detector.predict(str(tmp_path), maps=False).maps is None


def test_unreadable_images_are_reported_and_skipped(tmp_path, fitted):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not really")
    prediction = fitted.predict(str(tmp_path))
    assert prediction.paths == ("good.png",)
    assert [error.name for error in prediction.errors] == ["broken.png"]
    with pytest.raises(ValueError, match=r"broken\.png"):
        fitted.predict(str(tmp_path), strict=True)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = Brightness(seed=3, epochs=2).fit(normal()), Brightness(seed=3, epochs=2).fit(normal())
    assert torch.equal(first.method.mean, second.method.mean)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(first.method.mean, Brightness(seed=4, epochs=2).fit(normal()).method.mean)


def test_saved_and_loaded_scores_are_equal(tmp_path, fitted):
    fitted.calibrate(normal(300, seed=1), false_alarm_rate=0.05)
    path = fitted.save(tmp_path / "model.safetensors")
    loaded = dracones.load(path)
    images = normal(9, seed=6)
    ours, theirs = fitted.predict(images), loaded.predict(images)
    assert np.array_equal(ours.scores, theirs.scores)
    assert np.array_equal(ours.p_values, theirs.p_values)
    assert (loaded.threshold, loaded.false_alarm_rate) == (fitted.threshold, 0.05)
    assert torch.equal(loaded.method.seen, fitted.method.seen)
    assert loaded.provenance == fitted.provenance
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_glow_scores_the_same_in_another_process(tmp_path):
    detector = dracones.create("glow", rule="typicality", epochs=1, density={"hidden": 4, "steps": 1})
    detector.fit(torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    path = detector.save(tmp_path / "glow.safetensors")
    images = (np.arange(5 * 64) % 256).astype(np.uint8).reshape(5, 8, 8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, json, dracones; print(json.dumps(dracones.load(sys.argv[1]).predict(sys.argv[2]).scores.tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "images.npy")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    np.testing.assert_allclose(json.loads(done.stdout), detector.predict(images).scores, rtol=1e-5)


def test_unfitted_detector_says_so(tmp_path):
    for act in (lambda d: d.predict(normal(2)), lambda d: d.save(tmp_path / "x"), lambda d: d.calibrate(normal(2))):
        with pytest.raises(ValueError, match="not fitted"):
            act(Brightness())


def test_a_second_fit_starts_anew():
    detector = Brightness(epochs=1, false_alarm_rate=0.1).fit(normal())
    assert detector.threshold is not None
    detector.fit(torch.rand(200, 1, 6, 6))
    assert detector.image_shape == (1, 6, 6)
    assert detector.predict(torch.rand(2, 1, 6, 6)).scores.shape == (2,)


def test_a_fit_that_failed_is_no_fit(monkeypatch):
    detector = Brightness(epochs=1)
    monkeypatch.setattr(detector.method, "fit_statistics", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        detector.fit(normal())
    with pytest.raises(ValueError, match="not fitted"):
        detector.predict(normal(2))


def test_nan_scores_are_refused_with_their_count(fitted):
    broken = Brightness(epochs=1).fit(normal())
    with torch.no_grad():
        broken.method.mean[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="4 NaN"):
        broken.predict(normal(4))


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="leave none to train on"):
        Brightness(validation_share=0.5, calibration_share=0.5).fit(normal())


def test_a_handful_of_images_is_refused_with_the_needed_count():
    with pytest.raises(ValueError, match=r"3 normal images are too few.*at least 10"):
        Brightness().fit(normal(3))
    assert Brightness(validation_share=0, calibration_share=0, epochs=1, batch_size=2).fit(normal(3)).provenance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scores_agree_between_devices(tmp_path, fitted):
    path = fitted.save(tmp_path / "model.safetensors")
    images = normal(9, seed=6)
    there = dracones.load(path, device="cuda").predict(images).scores
    np.testing.assert_allclose(there, fitted.predict(images).scores, rtol=1e-5)


def test_fit_without_held_out_parts():
    detector = Brightness(validation_share=0, calibration_share=0, epochs=1).fit(normal())
    assert detector.provenance["images"]["train"] == 200
    with pytest.raises(ValueError, match="no calibration images"):
        detector.calibrate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"powr": 2}, "did you mean 'power'"),
        ({"epoch": 2}, "did you mean 'epochs'"),
        ({"power": -1}, "'power'.*greater than 0, got -1"),
        ({"epochs": 0}, "training.epochs"),
        ({"seed": "abc"}, "'seed'.*got 'abc'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Brightness(**options)


def test_training_options_keep_the_methods_other_defaults():
    config = Brightness(epochs=3).config
    assert (config.training.epochs, config.training.batch_size, config.training.learning_rate) == (3, 16, 0.05)


def test_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'glow'"):
        dracones.create("glo")


def test_missing_truncated_foreign_and_newer_files_are_told_apart(tmp_path, fitted):
    with pytest.raises(FileNotFoundError, match="no model file"):
        dracones.load(tmp_path / "none.safetensors")
    whole = fitted.save(tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        dracones.load(tmp_path / "cut.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="dracones did not write it"):
        dracones.load(tmp_path / "foreign.safetensors")
    header = {"dracones": json.dumps({"format": 99, "origin": {"dracones": "7.0"}})}
    save_file({"a": torch.zeros(1)}, tmp_path / "newer.safetensors", metadata=header)
    with pytest.raises(ValueError, match=r"format 99.*dracones 7\.0"):
        dracones.load(tmp_path / "newer.safetensors")


def test_a_file_of_other_shapes_is_refused(tmp_path, fitted):
    path = fitted.save(tmp_path / "model.safetensors")
    header, tensors = storage.read(path)
    storage.write(path, {**header, "image_shape": [1, 4, 4]}, tensors)
    with pytest.raises(ValueError, match=r"treatment makes images of \(1, 8, 8\), and its method takes \(1, 4, 4\)"):
        dracones.load(path)
    small = {"image_shape": [1, 4, 4], "preprocess": {**header["preprocess"], "native_size": [4, 4]}}
    storage.write(path, {**header, **small}, tensors)
    with pytest.raises(ValueError, match="does not fit brightness"):
        dracones.load(path)


def test_a_failed_save_leaves_the_last_good_file(tmp_path, fitted, monkeypatch):
    path = fitted.save(tmp_path / "model.safetensors")
    before = path.read_bytes()

    def disk_full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.raw, "write_tensors", disk_full)
    with pytest.raises(OSError, match="is untouched"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_one_number_is_both_sides():
    assert Brightness(size=64, crop=32, tile=16).config.size == (64, 64)
    assert Brightness(size=64, crop=32, tile=16).config.tile == (16, 16)
