"""Classifiers named in text: timm with local weights, functions, exported programs; nothing imported unasked."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import dracones
from dracones.files.weights import read_weights
from dracones.methods.guards import ClassifierProbe, as_classifier, fingerprint
from dracones.methods.guards.loading import kind_of, load_classifier

SOURCE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))

def number():
    return 3
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "nets_of_a_test.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory):
    import timm

    torch.manual_seed(0)
    net = timm.create_model("resnet10t", pretrained=False, num_classes=5, in_chans=1)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(net.state_dict(), path)
    return path, net.eval()


def test_timm_name_with_local_weights(timm_weights):
    path, net = timm_weights
    named = load_classifier("resnet10t", path)
    x = torch.rand(2, 1, 64, 64)
    assert not named.module.training
    assert torch.equal(named.module(x), net(x))
    assert named.mean is None  # timm's mean is for three channels


def test_timm_normalisation_becomes_an_option_and_is_saved(tmp_path):
    import timm

    net = timm.create_model("resnet10t", pretrained=False, num_classes=5).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    guard = dracones.create("msp", classifier="resnet10t", classifier_weights=weights).fit(torch.rand(20, 3, 64, 64))
    assert guard.config.mean == pytest.approx((0.485, 0.456, 0.406))
    path = guard.save(tmp_path / "g.safetensors")
    again = dracones.load(path, classifier_weights=weights)  # a timm name runs no code, the path is the caller's
    x = torch.rand(2, 3, 64, 64)
    np.testing.assert_array_equal(again.predict(x).scores, guard.predict(x).scores)


def test_timm_refusals(timm_weights, tmp_path):
    path, _ = timm_weights
    with pytest.raises(ValueError, match="random weights; give the local weight file"):
        load_classifier("resnet10t")
    with pytest.raises(ValueError, match=r"no classifier 'resnet10tt'.*did you mean 'resnet10t'"):
        load_classifier("resnet10tt", path)
    with pytest.raises(ValueError, match="do not fit timm's resnet18"):
        load_classifier("resnet18", path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_classifier("resnet10t", tmp_path / "none.safetensors")


def test_weight_files_of_both_kinds_and_their_wrappings(tmp_path):
    net = nn.Linear(2, 3)
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.pt")
    assert torch.equal(read_weights(tmp_path / "w.pt")["weight"], net.weight)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="no readable safetensors file"):
        read_weights(tmp_path / "broken.safetensors")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(tmp_path / "empty.pt")


def test_pickled_objects_are_not_opened(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match="its pickle holds more than tensors"):
        read_weights(tmp_path / "pickled.pt")


def test_function_by_file_and_by_module(source, monkeypatch):
    by_file = load_classifier(f"{source}:net").module
    assert isinstance(by_file, nn.Sequential)
    monkeypatch.chdir(source.parent)
    path = list(sys.path)
    assert isinstance(load_classifier("nets_of_a_test:net").module, nn.Sequential)
    assert sys.path == path


def test_function_with_weights(source, tmp_path):
    made = load_classifier(f"{source}:net").module
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    assert fingerprint(load_classifier(f"{source}:net", tmp_path / "w.safetensors").module) == fingerprint(made)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="do not fit the classifier"):
        load_classifier(f"{source}:net", tmp_path / "x.safetensors")


def test_function_refusals(source, tmp_path):
    with pytest.raises(ValueError, match="has no function 'nett'; did you mean 'net'"):
        load_classifier(f"{source}:nett")
    with pytest.raises(TypeError, match=r"must return a torch.nn.Module, it returned int"):
        load_classifier(f"{source}:number")
    with pytest.raises(FileNotFoundError, match="no Python file"):
        load_classifier(f"{tmp_path}/none.py:net")
    with pytest.raises(ValueError, match="cannot import 'no_such_package'"):
        load_classifier("no_such_package:net")


def test_loading_a_guard_imports_no_code_unasked(source, tmp_path):
    name = f"{source}:net"
    torch.manual_seed(0)
    made = load_classifier(name).module
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    guard = dracones.create("energy", classifier=name, classifier_weights=str(tmp_path / "w.safetensors"))
    path = guard.fit(torch.rand(20, 3, 8, 8)).save(tmp_path / "g.safetensors")
    ran = source.with_name("ran")
    ran.unlink()
    with pytest.raises(ValueError, match="would run code or open a program; pass it yourself if you trust it"):
        dracones.load(path)
    assert not ran.exists()
    x = torch.rand(3, 3, 8, 8)
    np.testing.assert_array_equal(dracones.load(path, classifier=name).predict(x).scores, guard.predict(x).scores)
    np.testing.assert_array_equal(dracones.load(path, classifier=made).predict(x).scores, guard.predict(x).scores)


def export(net, x, path=None, dynamic=True):
    shapes = {"x": {0: torch.export.Dim("batch")}} if dynamic else None
    program = torch.export.export(net, (x,), dynamic_shapes=shapes)
    if path is not None:
        torch.export.save(program, path)
    return program


@pytest.mark.parametrize("method", ["knn", "vim", "odin", "msp"])
def test_exported_program_scores_as_the_module(tiny, tmp_path, method):
    net = tiny.TinyNet()
    path = tmp_path / "net.pt2"
    export(net, tiny.images(4), path)
    options = {"k": 3} if method == "knn" else {"epsilon": 0.01} if method == "odin" else {}
    guard = dracones.create(method, classifier=str(path), **options).fit(tiny.images(30))
    plain = dracones.create(method, classifier=net, **options).fit(tiny.images(30))
    got, expected = guard.predict(tiny.images(7)).scores, plain.predict(tiny.images(7)).scores
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    again = dracones.load(guard.save(tmp_path / "g.safetensors"), classifier=str(path))
    np.testing.assert_array_equal(again.predict(tiny.images(7)).scores, got)


def test_exported_program_of_one_batch_size_says_so(tiny):
    module = as_classifier(export(tiny.TinyNet(), tiny.images(4), dynamic=False))
    with pytest.raises(ValueError, match="export with a dynamic batch dimension"):
        ClassifierProbe(module)(tiny.images(3))


def test_program_exported_in_training_mode_is_refused(tiny):
    net = tiny.TinyNet().train()
    with pytest.raises(ValueError, match=r"exported in training mode.*call model.eval\(\)"):
        as_classifier(export(net, tiny.images(4)))


def test_program_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="no exported program at"):
        load_classifier(str(tmp_path / "none.pt2"))
    (tmp_path / "x.pt2").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"is not a program of torch.export"):
        load_classifier(str(tmp_path / "x.pt2"))
    with pytest.raises(ValueError, match="holds its weights; leave classifier_weights out"):
        load_classifier(str(tmp_path / "x.pt2"), "w.safetensors")


def test_kinds_are_told_apart(tmp_path):
    (tmp_path / "program").touch()
    names = ("resnet18", "a.b:c", "x/y.py:f", "net.pt2", str(tmp_path / "program"), "hf-hub:timm/resnet18")
    kinds = [kind_of(name) for name in names]
    assert kinds == ["timm", "function", "function", "exported", "exported", "timm"]
