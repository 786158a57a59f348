"""The faster copy: same answers, the model untouched, and a model it cannot trace served as it is."""

import numpy as np
import pytest
import torch
from torch import nn

import dracones
from dracones.methods.guards import ClassifierProbe, fingerprint
from dracones.methods.guards.acceleration import accelerated
from dracones.methods.guards.perturbation import input_gradient


class Branching(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) if x.sum() > 0 else self.net(-x)


@pytest.fixture
def net(tiny):
    net = tiny.TinyNet()
    net.norm.running_mean.copy_(torch.linspace(-0.2, 0.2, 8))
    net.norm.running_var.copy_(torch.linspace(0.5, 2.0, 8))
    return net


def test_same_answers_without_batch_norm(tiny, net):
    before = fingerprint(net)
    x = tiny.images(5)
    faster = accelerated(net, x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in faster.modules())
    torch.testing.assert_close(faster(x), net(x), rtol=1e-5, atol=1e-5)
    assert fingerprint(net) == before
    assert isinstance(net.norm, nn.BatchNorm2d)


def test_network_in_training_mode_is_folded_in_eval(tiny, net):
    x = tiny.images(5)
    expected = net.eval()(x)
    faster = accelerated(net.train(), x)
    torch.testing.assert_close(faster(x), expected, rtol=1e-5, atol=1e-5)
    assert net.training


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_torchvision_networks(name):
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    x = torch.rand(2, 3, 64, 64)
    faster = accelerated(net, x)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) for model in (net, faster)]
    assert norms[1] < norms[0]
    with torch.no_grad():
        torch.testing.assert_close(faster(x), net(x), rtol=1e-3, atol=1e-4)


def test_convolution_used_twice_is_not_folded():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.norm(self.conv(self.conv(x))).mean((2, 3)))

    net = Twice().eval()
    net.norm.running_var.fill_(4.0)
    x = torch.rand(2, 3, 4, 4)
    faster = accelerated(net, x)
    assert any(isinstance(m, nn.BatchNorm2d) for m in faster.modules())
    torch.testing.assert_close(faster(x), net(x))


def test_layer_that_is_read_is_kept(tiny, net):
    x = tiny.images(3)
    plain, fast = ClassifierProbe(net, layer="norm"), ClassifierProbe(net, layer="norm", accelerate=True)
    torch.testing.assert_close(fast(x).features, plain(x).features, rtol=1e-4, atol=1e-5)


def test_control_flow_is_served_as_it_is_with_a_warning(tiny, net):
    model = Branching(net)
    with pytest.warns(UserWarning, match="accelerate=True is ignored for this Branching: it cannot be traced"):
        outputs = ClassifierProbe(model, accelerate=True)(tiny.images(3))
    torch.testing.assert_close(outputs.logits, model(tiny.images(3)))


def test_copy_that_answers_differently_is_not_used():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(400, 2)

        def forward(self, x):
            return self.net(nn.functional.dropout(x.flatten(1)))  # random in eval mode too

    net = Odd()
    with pytest.warns(UserWarning, match="its traced copy answers differently"):
        assert accelerated(net, torch.ones(3, 1, 20, 20)) is net


@pytest.mark.parametrize("name", ["msp", "knn", "vim", "odin", "dice"])
def test_guards_score_the_same(tiny, net, tmp_path, name):
    options = {"knn": {"k": 3}, "odin": {"epsilon": 0.01, "temperature": 10.0}}.get(name, {})
    plain = dracones.create(name, classifier=net, **options).fit(tiny.images(40))
    fast = dracones.create(name, classifier=net, accelerate=True, **options).fit(tiny.images(40))
    expected = plain.predict(tiny.images(9)).scores
    np.testing.assert_allclose(fast.predict(tiny.images(9)).scores, expected, rtol=1e-3, atol=1e-4)
    again = dracones.load(fast.save(tmp_path / "g.safetensors"), classifier=net)
    assert again.config.accelerate
    np.testing.assert_array_equal(again.predict(tiny.images(9)).scores, fast.predict(tiny.images(9)).scores)


def test_gradient_in_bfloat16_changes_the_score_little_and_the_logits_not(tiny, net):
    options = {"classifier": net, "epsilon": 0.01, "temperature": 10.0}
    plain = dracones.create("odin", **options).fit(tiny.images(40))
    narrow = dracones.create("odin", gradient_precision="bfloat16", **options).fit(tiny.images(40))
    x = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = plain.score(x).image, narrow.score(x).image
    wide, fine = (input_gradient(plain.method.probe, x, 10.0, precision)[1] for precision in ("bfloat16", "own"))
    assert not torch.equal(wide, fine)
    assert (wide.sign() == fine.sign()).float().mean() > 0.9
    assert (a - b).abs().max() < 0.1 * a.std()
    assert torch.equal(narrow.wrap()(x).logits, plain.wrap()(x).logits)


def test_a_fit_suggests_it_where_it_would_serve(tiny):
    def notes(net, **options):
        return " ".join(dracones.create("msp", classifier=net, **options).fit(tiny.images(40)).method.notes)

    assert "accelerate=true" in notes(tiny.TinyNet())
    assert "BatchNorms (1)" in notes(tiny.TinyNet())
    assert "accelerate" not in notes(tiny.TinyNet(), accelerate=True)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert "accelerate" not in notes(flat)
