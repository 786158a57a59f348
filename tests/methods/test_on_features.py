"""What all detectors on frozen features share: presets, cache, precision, small files, verbs."""

from copy import deepcopy

import numpy as np
import pytest
import torch

import dracones
from dracones.features import FeatureExtractor
from dracones.methods.on_features import FeatureMethod
from dracones.metrics import auroc
from feature_case import SMALL, anomalies, normals

QUICK = {
    "patchcore": {"memory_share": 0.02},
    "padim": {"dimensions": 30},
    "fastflow": {"steps": 2, "epochs": 8, "batch_size": 8},
    "cflow": {"steps": 2, "epochs": 15, "batch_size": 8, "chunks": 2, "learning_rate": 5e-3},
}


def make(method, **options):
    return dracones.create(method, **{**SMALL, **QUICK[method], **options})


@pytest.fixture(scope="module", params=QUICK)
def fitted(request):
    return make(request.param).fit(normals(40))


def test_every_method_finds_the_square_and_shows_where(fitted):
    images, mask = anomalies()
    calm, loud = fitted.predict(normals(12, seed=5)), fitted.predict(images)
    assert auroc(np.concatenate((calm.scores, loud.scores)), np.repeat([0, 1], (12, 8))) > 0.9
    if "map" in fitted.info.gives:
        heat = np.stack(loud.maps)
        assert heat.shape == (8, 64, 64)
        assert auroc(heat.ravel(), np.tile(mask.numpy(), (8, 1, 1)).ravel()) > 0.8
    else:
        assert loud.maps is None


def test_saved_and_loaded_scores_are_the_same(fitted, tmp_path):
    images, _ = anomalies()
    path = fitted.save(tmp_path / "model.safetensors")
    again = dracones.load(path)
    assert isinstance(again.method, FeatureMethod)
    assert again.config == fitted.config
    np.testing.assert_array_equal(again.predict(images).scores, fitted.predict(images).scores)
    # the backbone came with the file: nothing is fetched when statistics are gathered anew
    assert again.method._has_weights


def test_a_score_does_not_depend_on_the_batch(fitted):
    images, _ = anomalies()
    together, alone = fitted.predict(images, batch_size=8), fitted.predict(images, batch_size=1)
    np.testing.assert_allclose(together.scores, alone.scores, rtol=2e-4)


def test_a_written_configuration_gives_the_same_scores(fitted):
    again = dracones.create(fitted.info.name, **fitted.config.model_dump(mode="json")).fit(normals(40))
    images, _ = anomalies()
    np.testing.assert_allclose(again.predict(images).scores, fitted.predict(images).scores, rtol=1e-5)


@pytest.mark.parametrize("method", sorted(QUICK.keys() - {"padim"}))  # PaDiM knows one size alone, tested there
def test_gray_images_and_another_size_at_inference(method):
    detector = make(method, channels=1).fit(normals(24, channels=1))
    assert np.isfinite(detector.predict(normals(3, channels=1)).scores).all()
    with torch.no_grad():
        scores = detector.score(normals(2, side=96, channels=1))
    assert torch.isfinite(scores.image).all()
    if scores.map is not None:
        assert scores.map.shape == (2, 96, 96)


def test_second_fit_reads_features_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRACONES_CACHE", str(tmp_path))
    calls = []
    forward = FeatureExtractor.forward

    def counted(self, images, **options):
        calls.append(len(images))
        return forward(self, images, **options)

    monkeypatch.setattr(FeatureExtractor, "forward", counted)
    options = {"cache": True, "calibration_share": 0.0, "epochs": 2}
    first = make("fastflow", **options).fit(normals(40))
    computed = sum(calls)
    calls.clear()
    second = make("fastflow", **options).fit(normals(40))
    make("cflow", **options, validation_share=0.1).fit(normals(40))
    assert computed >= 40
    assert sum(calls) <= 4  # only shapes are asked for
    images, _ = anomalies()
    np.testing.assert_array_equal(first.predict(images).scores, second.predict(images).scores)


def test_presets_fill_in_what_is_not_given():
    fast = dracones.create("fastflow", preset="fast").config
    assert (fast.levels, fast.training.epochs, fast.training.learning_rate) == ((2, 3), 15, 1e-3)
    mixed = dracones.create("fastflow", preset="fast", levels=(3,), batch_size=4).config
    assert (mixed.levels, mixed.training.epochs, mixed.training.batch_size) == ((3,), 15, 4)
    own = dracones.create("fastflow", preset="fast", epochs=2).config
    assert own.training.epochs == 2
    assert dracones.create("fastflow", preset="best").config.training.epochs == 500
    whole = dracones.create("fastflow", **fast.model_dump(mode="json")).config
    assert whole == fast
    with pytest.raises(ValueError, match="preset"):
        dracones.create("fastflow", preset="quick")
    with pytest.raises(ValueError, match="unknown option 'epoch'"):
        dracones.create("fastflow", epoch=3)


def test_half_precision_weights_stay_half_in_the_file_and_lose_nothing(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = FeatureExtractor("squeezenet1_1", levels=(1,), weights="random")
    state = {
        key.removeprefix("backbone.network."): value.half().contiguous()
        for key, value in source.backbone.state_dict().items()
    }
    save_file({key.removeprefix("network."): value for key, value in state.items()}, tmp_path / "half.safetensors")
    options = {"backbone": "squeezenet1_1", "weights": str(tmp_path / "half.safetensors"), "levels": (1,), "epochs": 1}
    detector = make("fastflow", **options).fit(normals(24))
    path = detector.save(tmp_path / "model.safetensors")
    with safe_open(path, framework="pt") as file:
        kinds = {file.get_tensor(key).dtype for key in file.keys() if "extractor.backbone" in key}  # noqa: SIM118
    assert kinds == {torch.float16}
    images, _ = anomalies()
    np.testing.assert_array_equal(dracones.load(path).predict(images).scores, detector.predict(images).scores)


def test_bfloat16_scores_nearly_the_same():
    exact = make("fastflow").fit(normals(40))
    images, _ = anomalies()
    rough = deepcopy(exact)
    rough.method.config = exact.config.model_copy(update={"precision": "bf16"})
    np.testing.assert_allclose(rough.predict(images).scores, exact.predict(images).scores, rtol=0.05, atol=0.01)
    assert rough.method.training_config().precision == "bf16"
    assert exact.method.training_config().precision == "fp32"


def test_a_model_learns_on_features_of_the_precision_it_scores():
    detector = make("fastflow", precision="bf16", epochs=1).fit(normals(24))
    images = normals(4)
    from dracones.images import open_images

    (learnt,) = (features for features in detector.method.features_of(detector.adopt(open_images(images))).chunks(4))
    with torch.no_grad(), detector.method.scoring_precision():
        scored = detector.method.extractor(images)
    for a, b in zip(learnt, scored, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=1e-2, atol=1e-3)
    exact = make("fastflow").fit(normals(24))
    assert detector.method.extractor.fingerprint() == exact.method.extractor.fingerprint()


def test_unknown_backbone_and_missing_file_are_named_at_fit():
    with pytest.raises(ValueError, match="unknown backbone 'resnet81'; nearest names"):
        make("fastflow", backbone="resnet81").fit(normals(24))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors does not exist"):
        make("fastflow", weights="nowhere.safetensors").fit(normals(24))


def test_tiles_are_cut_from_images_as_they_are():
    assert dracones.create("csflow", tile=(64, 64), preset="fast").config.size is None
    assert dracones.create("csflow", tile=(64, 64), size=(512, 512)).config.size == (512, 512)
    options = {**SMALL, "tile": (32, 32), "memory_share": 0.02}
    del options["size"]
    detector = dracones.create("patchcore", **options).fit(normals(20, side=96))
    images = normals(6, side=96, seed=4).clone()
    images[:3, :, 72:80, 72:80] = torch.eye(8)  # lost where 96 pixels are squeezed to 32
    scores = detector.predict(images).scores
    assert scores[:3].min() > scores[3:].max()
    again = dracones.create("patchcore", **detector.config.model_dump(mode="json"))
    assert again.config == detector.config


@pytest.mark.parametrize("name", ["embedding_flow", "differnet", "csflow", "fastflow", "cflow", "msflow"])
def test_a_flows_rate_falls_and_held_out_images_end_its_training(name):
    training = dracones.create(name, preset="balanced", backbone="resnet18", weights="random").config.training
    assert training.schedule in ("cosine", "step")
    assert training.patience is not None


@pytest.mark.parametrize(("name", "times"), [("differnet", 5), ("csflow", 15)])
def test_short_presets_train_faster_than_the_papers_recipe_which_best_keeps(name, times):
    """At the paper's rate so few epochs hardly leave the start: `benchmarks/inspection`, held_out.json."""
    fast, balanced, best = (
        dracones.create(name, preset=preset, weights="random").config.training
        for preset in ("fast", "balanced", "best")
    )
    assert fast.learning_rate == balanced.learning_rate == pytest.approx(times * best.learning_rate)
    assert fast.schedule == balanced.schedule == "cosine"
    assert best.schedule == "constant"
