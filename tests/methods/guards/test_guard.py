"""The detector contract for every guard: golden values, the file and its fingerprint, serving, bad input."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import dracones
from dracones.files import storage
from dracones.images import open_images
from dracones.methods import method_class, method_names
from dracones.methods.guards import ClassifierOutputs, GuardedClassifier, fingerprint

METHODS = tuple(n for n in method_names() if method_class(n).info.family == "classifier")
OPTIONS = {
    "knn": {"k": 3},
    "odin": {"epsilon": 0.01, "temperature": 10.0},
    "gen": {"top": 3},
    "react": {"percentile": 0.7},
}
# Scores of two images by the tiny classifier; the formulas are tested against other libraries in the files beside.
GOLDEN = {
    ("ash", 1): (-145.03, -124.11),
    ("ash", 3): (-270.71, -228.63),
    ("dice", 1): (-9.2171, -9.5058),
    ("dice", 3): (-6.3974, -6.55),
    ("energy", 1): (-9.8633, -9.9397),
    ("energy", 3): (-10.913, -11.406),
    ("entropy", 1): (0.00010005, 8.9998e-05),
    ("entropy", 3): (2.6949e-05, 1.4043e-05),
    ("feature_density", 1): (-30.511, -29.110),
    ("feature_density", 3): (-25.876, -24.036),
    ("gen", 1): (0.87794, 0.86761),
    ("gen", 3): (0.76244, 0.70865),
    ("knn", 1): (0.010069, 0.006614),
    ("knn", 3): (0.0056214, 0.0050123),
    ("mahalanobis", 1): (5.0589, 2.4969),
    ("mahalanobis", 3): (4.0587, 6.5779),
    ("max_logit", 1): (-9.8632, -9.9397),
    ("max_logit", 3): (-10.913, -11.406),
    ("msp", 1): (7.4258e-06, 6.6286e-06),
    ("msp", 3): (1.8043e-06, 8.9919e-07),
    ("odin", 1): (0.41493, 0.40928),
    ("odin", 3): (0.39421, 0.38159),
    ("react", 1): (-7.256, -7.0945),
    ("react", 3): (-9.8867, -9.882),
    ("relative_mahalanobis", 1): (-0.69557, -0.25187),
    ("relative_mahalanobis", 3): (-0.48419, -1.3558),
    ("residual", 1): (0.026887, 0.013127),
    ("residual", 3): (0.035117, 0.015933),
    ("scale", 1): (-224.41, -184.84),
    ("scale", 3): (-496.76, -377.65),
    ("vim", 1): (14.883, 2.1423),
    ("vim", 3): (5.343, -4.0305),
}


def train(tiny, channels=3, count=60):
    return open_images(tiny.images(count, channels), labels=np.arange(count) % 4)


def made(tiny, name, channels=3, **options):
    return dracones.create(name, classifier=tiny.TinyNet(channels), **OPTIONS.get(name, {}), **options)


@pytest.fixture(scope="module")
def fitted(tiny):
    known = {}

    def get(name, channels=3):
        if (name, channels) not in known:
            known[name, channels] = made(tiny, name, channels, false_alarm_rate=0.2).fit(train(tiny, channels))
        return known[name, channels]

    return get


def test_all_sixteen_are_registered():
    assert set(METHODS) == {
        "msp", "odin", "max_logit", "energy", "entropy", "gen", "mahalanobis", "relative_mahalanobis", "knn", "vim",
        "residual", "react", "ash", "scale", "dice", "feature_density",
    }  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_golden_scores(tiny, fitted, name, channels):
    got = fitted(name, channels).score(tiny.images(2, channels)).image
    np.testing.assert_allclose(got, GOLDEN[name, channels], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_three_lines(tiny, fitted, name):
    verdict = fitted(name).predict(tiny.images(6))
    assert verdict.scores.shape == verdict.p_values.shape == verdict.is_anomaly.shape == (6,)
    assert verdict.maps is None
    np.testing.assert_allclose(
        fitted(name).predict(tiny.images(6), batch_size=1).scores, verdict.scores, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("name", METHODS)
def test_file_gives_the_same_scores_and_holds_no_classifier(tiny, fitted, tmp_path, name):
    guard = fitted(name)
    path = guard.save(tmp_path / "guard.safetensors")
    again = dracones.load(path, classifier=tiny.TinyNet())
    np.testing.assert_array_equal(again.predict(tiny.images(6)).scores, guard.predict(tiny.images(6)).scores)
    np.testing.assert_array_equal(again.predict(tiny.images(6)).p_values, guard.predict(tiny.images(6)).p_values)
    header, tensors = storage.read(path)
    assert header["extras"]["classifier"]["fingerprint"] == fingerprint(tiny.TinyNet())
    assert not any("stem" in tensor or "classifier" in tensor for tensor in tensors)


@pytest.mark.parametrize("name", METHODS)
def test_other_weights_are_refused(tiny, fitted, tmp_path, name):
    path = fitted(name).save(tmp_path / "guard.safetensors")
    other = tiny.TinyNet()
    other.norm.running_mean[0] += 1e-6
    with pytest.raises(ValueError, match=r"fitted on a TinyNet with weights \w{12}, this TinyNet has \w{12}"):
        dracones.load(path, classifier=other)
    with pytest.raises(ValueError, match="half precision counts as other weights"):
        dracones.load(path, classifier=tiny.TinyNet().bfloat16())
    with pytest.raises(ValueError, match=f"{name} guards a classifier: pass classifier=model"):
        dracones.load(path)


@pytest.mark.parametrize("name", METHODS)
def test_classifier_is_given_back_as_it_was(tiny, name):
    guard = made(tiny, name)
    net = guard.method.classifier
    net.train()
    net.norm.eval()
    modes, weights = [m.training for m in net.modules()], fingerprint(net)
    guard.fit(train(tiny))
    guard.predict(tiny.images(3))
    assert [m.training for m in net.modules()] == modes
    assert fingerprint(net) == weights
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_guard_neither_owns_nor_moves_its_classifier(fitted, name):
    guard = fitted(name)
    owned = {id(parameter) for parameter in guard.pipeline.parameters()}
    assert not owned & {id(parameter) for parameter in guard.method.classifier.parameters()}
    assert not any(module is guard.method.classifier for module in guard.pipeline.modules())


@pytest.mark.parametrize("name", METHODS)
def test_record_says_what_is_needed(name):
    info = method_class(name).info
    assert "classifier" in info.needs
    assert ("labels" in info.needs) == (name in {"mahalanobis", "relative_mahalanobis"})
    assert ("gradients" in info.needs) == (name == "odin")


@pytest.mark.parametrize("name", METHODS)
def test_wrap_gives_logits_and_scores_in_one_pass(tiny, fitted, name):
    guard, x = fitted(name), tiny.images(5)
    served = guard.wrap()
    calls = []
    handle = guard.method.classifier.register_forward_hook(lambda *_: calls.append(1))
    answer = served(x)
    handle.remove()
    assert len(calls) == (2 if name == "odin" else 1)
    torch.testing.assert_close(answer.logits, guard.method.classifier(x))
    torch.testing.assert_close(answer.scores, guard.score(x).image)
    assert answer.is_anomaly.tolist() == (answer.scores > guard.threshold).tolist()


def test_wrap_takes_another_copy_of_the_same_weights(tiny, fitted):
    copy = tiny.TinyNet()
    served = fitted("knn").wrap(copy)
    assert any(module is copy for module in served.modules())
    torch.testing.assert_close(served(tiny.images(2)).scores, fitted("knn").score(tiny.images(2)).image)
    other = tiny.TinyNet()
    other.fc.bias.data += 1
    with pytest.raises(ValueError, match="its scores and threshold would mean nothing"):
        fitted("knn").wrap(other)


def test_wrap_before_fit_is_refused(tiny):
    with pytest.raises(ValueError, match="this knn is not fitted"):
        made(tiny, "knn").wrap()
    with pytest.raises(ValueError, match="this knn is not fitted"):
        GuardedClassifier(made(tiny, "knn").method)
    with pytest.raises(TypeError, match="glow guards no classifier"):
        dracones.create("glow").wrap()


def test_wrapped_guard_without_threshold_gives_no_verdict(tiny):
    guard = made(tiny, "msp", calibration_share=0.0).fit(train(tiny))
    assert guard.wrap()(tiny.images(2)).is_anomaly is None


def test_scores_run_on_precomputed_arrays(tiny, fitted):
    x = tiny.images(4)
    for name in METHODS:
        guard = fitted(name)
        outputs = guard.method.probe(x)
        if name == "odin":
            with pytest.raises(ValueError, match="runs the classifier again"):
                guard.method.score_outputs(outputs.logits, outputs.features)
        else:
            torch.testing.assert_close(
                guard.method.score_outputs(outputs.logits, outputs.features), guard.score(x).image
            )


def test_logit_scores_find_no_layer_and_need_none():
    class Opaque(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], dim=1)

    guard = dracones.create("energy", classifier=Opaque()).fit(torch.rand(20, 3, 8, 8))
    assert len(guard.predict(torch.rand(3, 3, 8, 8))) == 3
    with pytest.raises(ValueError, match="found no last linear layer"):
        dracones.create("knn", classifier=Opaque()).fit(torch.rand(20, 3, 8, 8))


@pytest.mark.parametrize("name", ["mahalanobis", "relative_mahalanobis"])
def test_labels_come_from_the_data(tiny, name):
    with pytest.raises(ValueError, match="needs class labels of the training images"):
        made(tiny, name).fit(tiny.images(40))
    with pytest.raises(ValueError, match=r"labels are outside 0\.\.3"):
        made(tiny, name).fit(open_images(tiny.images(40), labels=np.arange(40) % 5))
    labelled = TensorDataset(tiny.images(40))
    labelled.targets = np.arange(40) % 4
    expected = made(tiny, name).fit(open_images(tiny.images(40), labels=np.arange(40) % 4))
    for guard in (made(tiny, name).fit(labelled), made(tiny, name).fit(tiny.images(40), labels=np.arange(40) % 4)):
        np.testing.assert_allclose(
            guard.predict(tiny.images(5)).scores, expected.predict(tiny.images(5)).scores, rtol=1e-5
        )


def test_bad_classifier_is_refused_at_fit(tiny):
    softmax = nn.Sequential(tiny.TinyNet(), nn.Softmax(1))
    for name in METHODS:
        with pytest.raises(ValueError, match="returns probabilities"):
            dracones.create(name, classifier=softmax, **OPTIONS.get(name, {})).fit(train(tiny))


def test_no_classifier_is_an_error_that_says_how():
    with pytest.raises(ValueError, match="msp guards a classifier: pass classifier=model, or name one"):
        dracones.create("msp")


def test_mean_without_std_is_refused(tiny):
    with pytest.raises(ValueError, match="mean and std go together"):
        made(tiny, "msp", mean=(0.5, 0.5, 0.5))


def test_normalisation_is_saved_with_the_guard(tiny, tmp_path):
    guard = made(tiny, "energy", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)).fit(train(tiny))
    again = dracones.load(guard.save(tmp_path / "g.safetensors"), classifier=tiny.TinyNet())
    np.testing.assert_array_equal(again.predict(tiny.images(3)).scores, guard.predict(tiny.images(3)).scores)
    plain = made(tiny, "energy").fit(train(tiny))
    assert not np.allclose(plain.predict(tiny.images(3)).scores, guard.predict(tiny.images(3)).scores)


def test_outputs_on_another_device_than_the_guard_are_brought_over(tiny, fitted):
    guard = fitted("knn")
    outputs = guard.method.probe(tiny.images(2))
    wide = ClassifierOutputs(outputs.logits.double(), outputs.features.double())
    torch.testing.assert_close(
        guard.method.score_outputs(wide.logits, wide.features),
        guard.method.score_outputs(outputs.logits, outputs.features),
    )


def test_fingerprint_ignores_mode_device_order_and_wrappers(tiny):
    net = tiny.TinyNet()
    expected = fingerprint(net)
    assert fingerprint(net.train()) == expected
    assert fingerprint(nn.DataParallel(net)) == expected
    assert fingerprint(torch.compile(net, backend="eager")) == expected
    with torch.no_grad():
        net.fc.bias[0] = torch.nextafter(net.fc.bias[0], torch.tensor(9.0))
    assert fingerprint(net) != expected


def test_half_precision_classifier_is_guarded(tiny, tmp_path):
    guard = dracones.create("scale", classifier=tiny.TinyNet().bfloat16()).fit(train(tiny))
    wide = made(tiny, "scale").fit(train(tiny))
    np.testing.assert_allclose(guard.predict(tiny.images(4)).scores, wide.predict(tiny.images(4)).scores, rtol=0.1)
    again = dracones.load(guard.save(tmp_path / "g.safetensors"), classifier=tiny.TinyNet().bfloat16())
    np.testing.assert_array_equal(again.predict(tiny.images(4)).scores, guard.predict(tiny.images(4)).scores)
