"""Reading a classifier: which layer, which mode, which precision; and what is refused."""

import pytest
import torch
from torch import nn

from dracones.methods.guards.checks import refuse_probabilities
from dracones.methods.guards.normalization import Normalization
from dracones.methods.guards.outputs import ClassifierOutputs, LinearHead, logits_of
from dracones.methods.guards.pooling import pooled
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.views import eval_view


class Answering(nn.Module):
    """A classifier that returns whatever ``answer`` makes of its logits."""

    def __init__(self, answer):
        super().__init__()
        self.fc = nn.Linear(12, 3)
        self.answer = answer

    def forward(self, x):
        return self.answer(self.fc(x.flatten(1)))


X = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_and_features_in_one_pass(tiny, channels):
    net, x = tiny.TinyNet(channels), tiny.images(5, channels)
    probe = ClassifierProbe(net)
    probe(x)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    outputs = probe(x)
    assert len(calls) == 1
    assert torch.equal(outputs.logits, net(x))
    torch.testing.assert_close(outputs.features, net.features(x))
    assert torch.equal(probe.head.weight, net.fc.weight)


@pytest.mark.parametrize(
    ("library", "name", "width"),
    [
        ("torchvision", "resnet18", 512),
        ("torchvision", "mobilenet_v3_small", 1024),
        ("torchvision", "squeezenet1_1", 512),
        ("torchvision", "densenet121", 1024),
        ("timm", "resnet10t", 512),
        ("timm", "vit_tiny_patch16_224", 192),
        ("timm", "convnext_atto", 320),
        ("timm", "efficientnet_lite0", 1280),
    ],
)
def test_layer_is_found_in_known_libraries(library, name, width):
    if library == "timm":
        import timm

        net = timm.create_model(name, pretrained=False, num_classes=7)
    else:
        import torchvision

        net = torchvision.models.get_model(name, weights=None, num_classes=7)
    x = torch.rand(2, 3, *((224, 224) if "vit" in name else (64, 64)))
    probe = ClassifierProbe(net)
    outputs = probe(x)
    assert outputs.features.shape == (2, width)
    if name == "squeezenet1_1":
        assert probe.head is None
    else:
        torch.testing.assert_close(probe.head(outputs.features), outputs.logits, rtol=1e-4, atol=1e-4)


def test_named_layer_is_read_before_a_later_layer_overwrites_it(tiny):
    net, x = tiny.TinyNet(), tiny.images(2)
    outputs = ClassifierProbe(net, layer="norm")(x)
    torch.testing.assert_close(outputs.features, net.norm(net.stem(x)).mean(dim=(2, 3)))
    assert outputs.features.min() < 0  # the in-place ReLU after it did not reach the copy


def test_named_layer_right_before_the_last_one_has_a_head(tiny):
    probe = ClassifierProbe(tiny.TinyNet(), layer="drop")
    probe(tiny.images(2))
    assert probe.head is not None
    other = ClassifierProbe(tiny.TinyNet(), layer="stem")
    other(tiny.images(2))
    assert other.head is None


def test_wrong_layer_names_the_nearest(tiny):
    with pytest.raises(ValueError, match="no layer 'stemm'; did you mean 'stem'"):
        ClassifierProbe(tiny.TinyNet(), layer="stemm")


def test_layer_that_does_not_run_is_refused(tiny):
    net = tiny.TinyNet()
    net.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="layer 'spare' did not run"):
        ClassifierProbe(net, layer="spare")(tiny.images(1))


def test_classifier_without_linear_layer_asks_for_one():
    net = nn.Sequential(nn.Conv2d(3, 5, 2), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Unflatten(1, (5,)))
    net.append(Answering(lambda z: z).answer and nn.Identity())
    probe = ClassifierProbe(nn.Sequential(net[0], net[1], net[2]))
    assert probe(X).features.shape == (6, 3)  # one channel a class: what the convolution reads
    with pytest.raises(ValueError, match=r"found no last linear layer.*the last that ran were '0'"):
        ClassifierProbe(nn.Sequential(nn.Flatten()))(X)


def test_modes_are_left_alone(tiny):
    net = tiny.TinyNet()
    net.train()
    net.norm.eval()
    before = [m.training for m in net.modules()]
    ClassifierProbe(net)(tiny.images(3))
    assert [m.training for m in net.modules()] == before
    assert not any(m.training for m in eval_view(net).modules())
    assert [m.training for m in net.modules()] == before


def test_scores_do_not_depend_on_the_mode_the_model_was_in(tiny):
    net, x = tiny.TinyNet(), tiny.images(4)
    expected = ClassifierProbe(net)(x)
    net.train()
    got = ClassifierProbe(net)(x)
    assert torch.equal(got.logits, expected.logits)
    assert net.norm.num_batches_tracked == 0


def test_no_hook_stays_behind(tiny):
    net = tiny.TinyNet()
    ClassifierProbe(net)(tiny.images(2))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision_is_the_classifiers_and_outputs_are_wide(tiny, dtype):
    net, x = tiny.TinyNet(), tiny.images(3)
    expected = ClassifierProbe(net)(x)
    probe = ClassifierProbe(net.to(dtype))
    outputs = probe(x)
    assert outputs.logits.dtype == outputs.features.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(outputs.logits.float(), expected.logits, rtol=0.05, atol=0.02)
    assert probe.head is not None


def test_autocast_is_respected(tiny):
    probe, x = ClassifierProbe(tiny.TinyNet()), tiny.images(3)
    plain = probe(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = probe(x)
    assert cast.logits.dtype == torch.float32
    assert torch.equal(cast.logits, cast.logits.bfloat16().float())
    assert not torch.equal(cast.logits, plain.logits)


def test_wrapped_models_are_read_through(tiny):
    net, x = tiny.TinyNet(), tiny.images(2)
    expected = ClassifierProbe(net)(x).features
    for wrapper in (nn.DataParallel(net), torch.compile(net, backend="eager")):
        assert torch.equal(ClassifierProbe(wrapper)(x).features, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_per_channel(tiny, channels):
    net, x = tiny.TinyNet(channels), tiny.images(2, channels)
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.5, 0.6, 0.7)[:channels]
    probe = ClassifierProbe(net, normalization=Normalization(mean, std))
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(channels)], dim=1)
    torch.testing.assert_close(probe(x).logits, net(by_hand))


def test_normalisation_refuses_other_channels():
    with pytest.raises(ValueError, match="mean and std have 3 channels, the images 1"):
        Normalization((0.5,) * 3, (0.5,) * 3)(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="got 3 and 1"):
        Normalization((0.5,) * 3, (0.5,))
    with pytest.raises(ValueError, match="std must be above 0"):
        Normalization((0.5,), (0.0,))


def test_images_normalised_already_are_warned_of(tiny):
    x = (tiny.images(4) - 0.5) / 0.25
    with pytest.warns(UserWarning, match="look normalised already"):
        ClassifierProbe(tiny.TinyNet(), normalization=Normalization([0.5], [0.25]))(x)


def test_classifier_that_normalises_itself_is_warned_of(tiny):
    net = nn.Sequential(Normalization([0.5], [0.25]), tiny.TinyNet())
    with pytest.warns(UserWarning, match=r"normalises by itself \(layer '0', Normalization\)"):
        ClassifierProbe(net, normalization=Normalization([0.5], [0.25]))


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (lambda z: (z, z), TypeError, "returned a tuple of 2.*output=0"),
        (lambda z: {"logits": z, "loss": z}, TypeError, r"keys \['logits', 'loss'\].*output='logits'"),
        (lambda z: z.softmax(1), ValueError, "returns probabilities.*remove the last softmax"),
        (lambda z: z[:, :1], ValueError, "returned 1 class"),
        (lambda z: z[:, 0], ValueError, r"must return logits \[B, K\], got shape \(4,\)"),
        (lambda z: z.argmax(1, keepdim=True).expand(-1, 2), TypeError, "remove the argmax"),
        (lambda z: torch.where(z == z.max(), torch.nan, z), ValueError, "1 logits that are NaN or infinite, in 1 of 4"),
        (lambda _: "cat", TypeError, "returned str, expected a tensor"),
    ],
)
def test_what_are_no_logits_is_refused(answer, kind, message):
    with pytest.raises(kind, match=message):
        ClassifierProbe(Answering(answer))(X)


def test_log_probabilities_are_warned_of():
    with pytest.warns(UserWarning, match="returns log-probabilities"):
        ClassifierProbe(Answering(lambda z: z.log_softmax(1)))(X)


@pytest.mark.parametrize(
    ("answer", "output"),
    [(lambda z: (z * 0, z), 1), (lambda z: [z * 0, z], -1), (lambda z: {"logits": z}, "logits")],
)
def test_output_says_which_part_holds_the_logits(answer, output):
    net = Answering(answer)
    assert torch.equal(ClassifierProbe(net, output=output)(X).logits, net.fc(X.flatten(1)))


def test_wrong_output_is_refused():
    z = torch.zeros(1, 2)
    with pytest.raises(TypeError, match=r"output='x' is not among the classifier's keys \['a'\]"):
        logits_of({"a": z}, "x")
    with pytest.raises(TypeError, match="output=5 is no position"):
        logits_of((z,), 5)
    with pytest.raises(TypeError, match="returned one tensor; leave output out"):
        logits_of(z, 0)


def test_a_logit_row_that_happens_to_sum_to_one_is_fine():
    refuse_probabilities(torch.tensor([[2.0, -1.0], [0.3, 0.7]]))


def test_eight_bit_images_and_wrong_ranks_are_refused(tiny):
    probe = ClassifierProbe(tiny.TinyNet())
    with pytest.raises(TypeError, match="divide 8-bit levels by 255"):
        probe(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"images must be \[B, C, H, W\]"):
        probe(torch.zeros(3, 8, 8))


def test_a_function_is_no_classifier():
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got function"):
        ClassifierProbe(lambda x: x)


def test_pooled_shapes():
    assert pooled(torch.ones(2, 5, 3)).shape == (2, 3)
    assert pooled(torch.ones(2, 3, 4, 4, 4)).shape == (2, 3)
    with pytest.raises(ValueError, match="batch and a feature dimension"):
        pooled(torch.ones(2))
    with pytest.raises(TypeError, match="gives tuple, not a tensor"):
        pooled((torch.ones(2, 2),))


def test_outputs_join_and_slice():
    a = ClassifierOutputs(torch.zeros(2, 3), torch.ones(2, 4))
    joined = ClassifierOutputs.join([a, a])
    assert len(joined) == 4
    assert joined[1:3].features.shape == (2, 4)
    with pytest.raises(ValueError, match="no batch to join"):
        ClassifierOutputs.join([])


def test_linear_head_checks_its_shapes():
    with pytest.raises(ValueError, match=r"weight \[K, F\] and bias \[K\]"):
        LinearHead(torch.zeros(3, 2), torch.zeros(2))
