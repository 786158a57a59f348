"""Which layer is read, whatever the head is made of; nothing of the classifier is touched; guards export."""

import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

import dracones
from dracones.methods import method_class, method_names
from dracones.methods.guards import ClassifierProbe
from dracones.methods.guards.subspace import _logit_size

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
METHODS = tuple(n for n in method_names() if method_class(n).info.family == "classifier")


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.pool, self.flat = (
            nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.a, self.fc = nn.Linear(24, 16), nn.Linear(24, 5)
        self.eval()

    def trunk(self, x):
        return self.flat(self.pool(functional.relu(self.norm(self.stem(x)))))

    def forward(self, x):
        return self.fc(self.trunk(x))


class Spectral(Trunk):
    def __init__(self):
        super().__init__()
        self.fc = nn.utils.parametrizations.spectral_norm(self.fc)
        self.eval()


class Weighted(Trunk):
    def __init__(self):
        super().__init__()
        self.fc = nn.utils.parametrizations.weight_norm(self.fc)


class Keyword(Trunk):
    def forward(self, x):
        return self.fc(input=self.trunk(x))


class Functional(Trunk):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 24))

    def forward(self, x):
        return functional.linear(self.trunk(x), self.w)


class Auxiliary(Trunk):
    def forward(self, x):
        z = self.trunk(x)
        logits = self.fc(z)
        self.a(z)
        return logits


class Lora(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(24, 2, bias=False), nn.Linear(2, 5, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Adapted(Trunk):
    def __init__(self):
        super().__init__()
        self.fc = Lora(self.fc)


class Scaled(Trunk):
    def forward(self, x):
        return self.fc(self.trunk(x)) / 0.07


class Members(Trunk):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(24, 5)

    def forward(self, x):
        z = self.trunk(x)
        return (self.fc(z) + self.other(z * 2)) / 2


@pytest.mark.parametrize("kind", [Trunk, Spectral, Weighted, Keyword, Functional, Auxiliary, Adapted, Scaled, Members])
def test_head_is_the_layer_whose_output_is_the_logits(kind):
    net = kind()
    probe = ClassifierProbe(net)
    outputs = probe(X)
    assert outputs.features.shape == (6, 48 if kind is Members else 24)
    torch.testing.assert_close(probe.head(outputs.features), net(X), rtol=1e-3, atol=1e-3)
    assert not probe.found.note


def test_cosine_head_is_read_with_a_word():
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 24))

        def forward(self, x):
            return 16 * functional.linear(functional.normalize(x), functional.normalize(self.weight))

    net = Trunk()
    net.fc = Cosine()
    probe = ClassifierProbe(net)
    assert probe(X).features.shape == (6, 24)
    assert "24 numbers that go into layer 'fc' (Cosine)" in probe.found.note


@pytest.mark.parametrize("name", ["vim", "react", "ash", "scale", "dice"])
def test_named_layer_that_feeds_the_head_is_enough(name):
    guard = dracones.create(name, classifier=Auxiliary(), layer="flat").fit(torch.rand(60, 3, 8, 8))
    assert guard.score(X).image.shape == (6,)


def test_channels_last_maps_are_pooled_over_space():
    import timm

    net = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=5, embed_dim=16).eval()
    x = torch.rand(2, 3, 224, 224)
    for layer, width in (("norm", 128), ("layers.1", 32)):
        assert ClassifierProbe(net, layer=layer)(x).features.shape == (2, width)


def test_in_place_classifiers_leave_the_callers_images_alone():
    class InPlace(Trunk):
        def forward(self, x):
            return super().forward(x.sub_(0.5).div_(0.25))

    x = X.clone()
    for name in ("energy", "odin"):
        guard = dracones.create(name, classifier=InPlace()).fit(torch.rand(40, 3, 8, 8))
        served = guard.wrap()
        first = served(x).scores
        assert torch.equal(x, X)
        assert torch.equal(served(x).scores, first)
        guard.score(x)
        assert torch.equal(x, X)


@pytest.mark.parametrize("name", ["knn", "react", "msp"])
def test_eight_threads_get_their_own_scores_and_batch_norm_is_left_alone(name):
    net = Trunk().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    guard = dracones.create(name, classifier=net, **({"k": 3} if name == "knn" else {})).fit(torch.rand(60, 3, 8, 8))
    served, images = guard.wrap(), torch.rand(160, 1, 3, 8, 8)
    expected = [served(image).scores.item() for image in images]
    got = [0.0] * len(images)

    def work(start):
        for i in range(start, len(images), 8):
            got[i] = served(images[i]).scores.item()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(module.training for module in net.modules())


class BatchMean(Trunk):
    def forward(self, x):
        return super().forward(x - x.mean(dim=0, keepdim=True))


class Untracked(Trunk):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(24, track_running_stats=False).eval()


class Random(Trunk):
    def forward(self, x):
        return self.fc(functional.dropout(self.trunk(x)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (BatchMean, "depends on the batch it comes in"),
        (Untracked, "depends on the batch it comes in"),
        (Random, "answers differently for the same image"),
    ],
)
def test_answers_that_depend_on_batch_or_chance_are_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        dracones.create("msp", classifier=kind()).fit(torch.rand(40, 3, 8, 8))


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Tanh()])
def test_outputs_that_are_no_logits_are_warned_of(last):
    with pytest.warns(UserWarning, match="do not look like logits"):
        ClassifierProbe(nn.Sequential(Trunk(), last).eval())(X)


@dataclass
class Answer:
    logits: torch.Tensor
    loss: None = None


@pytest.mark.parametrize("output", ["logits", 0])
def test_dataclass_outputs(output):
    class Wrapped(Trunk):
        def forward(self, x):
            return Answer(super().forward(x))

    assert torch.equal(ClassifierProbe(Wrapped(), output=output)(X).logits, Trunk()(X))


def test_logit_size_of_vim_is_the_papers_for_usual_logits_and_above_zero_always():
    logits = 5 * torch.randn(100, 10, generator=torch.Generator().manual_seed(0)).double()
    assert _logit_size(logits) == logits.amax(dim=1).mean()
    assert _logit_size(logits - 100) > 0
    torch.testing.assert_close(_logit_size(logits - 100), _logit_size(logits + 100))


@pytest.mark.parametrize("name", [n for n in METHODS if n != "odin"])
def test_guards_export_with_a_free_batch(tiny, name):
    options = {"k": 3} if name == "knn" else {}
    guard = dracones.create(name, classifier=tiny.TinyNet(), **options).fit(
        tiny.images(60), labels=torch.arange(60).numpy() % 4
    )
    free = ({0: torch.export.Dim("batch")},)
    for module in (guard.method, guard.wrap()):
        program = torch.export.export(module.eval(), (tiny.images(4),), dynamic_shapes=free).module()
        for count in (2, 7):
            x = tiny.images(count)
            expected, got = module(x), program(x)
            index = 0 if module is guard.method else 1
            torch.testing.assert_close(got[index], expected[index], rtol=1e-5, atol=1e-5)


def test_weights_named_by_a_file_are_not_looked_for(tiny, tmp_path):
    import timm
    from safetensors.torch import save_file

    net = timm.create_model("resnet10t", pretrained=False, num_classes=4)
    weights = tmp_path / "weights.safetensors"
    save_file(net.state_dict(), weights)
    options = {"classifier": "resnet10t", "classifier_weights": str(weights), "size": (32, 32), "crop": None}
    guard = dracones.create("msp", **options).fit(torch.rand(30, 3, 32, 32))
    path = guard.save(tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match="not followed unasked") as present:
        dracones.load(path)
    weights.rename(tmp_path / "moved.safetensors")
    with pytest.raises(ValueError, match="not followed unasked") as absent:
        dracones.load(path)
    assert str(present.value) == str(absent.value)
    again = dracones.load(path, classifier_weights=str(tmp_path / "moved.safetensors"))
    assert again.config.size == (32, 32)


def test_timm_names_bring_their_size_crop_and_filter(tmp_path):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), tmp_path / "w.safetensors")
    config = dracones.create("msp", classifier="resnet10t", classifier_weights=str(tmp_path / "w.safetensors")).config
    recorded = timm.get_pretrained_cfg("resnet10t")
    height, width = recorded.input_size[1:]
    assert config.crop == (height, width)
    assert config.size == (int(height / recorded.crop_pct), int(width / recorded.crop_pct))
    assert (config.interpolation, config.fit) == (recorded.interpolation, "cover")
