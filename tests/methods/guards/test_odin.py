"""ODIN: the step by hand, against autograd's own cross-entropy, its cost, its tuning and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import dracones
from dracones.methods.guards import Msp, Odin
from dracones.methods.guards.normalization import Normalization
from dracones.methods.guards.perturbation import input_gradient, perturbed_logits, step
from dracones.methods.guards.probe import ClassifierProbe
from dracones.methods.guards.tuning import EPSILONS, Tuning, choose_by_validation, choose_in_distribution


def test_step_by_hand():
    x = torch.full((1, 2, 1, 2), 0.5)
    gradient = torch.tensor([[[[1e-30, -2.0]], [[0.0, 3.0]]]])
    std = torch.tensor([0.5, 0.1]).view(1, 2, 1, 1)
    expected = torch.tensor([[[[0.48, 0.52]], [[0.4, 0.4]]]])  # the sign of zero is +1
    torch.testing.assert_close(step(x, gradient, 0.01, std), expected)
    torch.testing.assert_close(step(x, gradient, 0.01)[0, 1], torch.tensor([[0.49, 0.49]]))


def test_linear_classifier_by_hand():
    """f = Wx: at T the gradient is W^T (softmax(f / T) - onehot), and the step is known exactly."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 1.0]])
    x = torch.tensor([0.9, 0.2, 0.4, 0.5]).view(1, 1, 2, 2)
    guard = dracones.create("odin", classifier=net, epsilon=0.1, temperature=10.0).fit(x.expand(20, -1, -1, -1))
    # f = (0.7, -0.2): class 0; its gradient p1 (-2, 2, 0, 1) moves the pixels to 1.0, 0.1, 0.3 (sign of zero), 0.4
    logits = np.array([0.9, -0.5])
    expected = 1 - 1 / (1 + np.exp((logits[1] - logits[0]) / 10))
    assert guard.score(x).image.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_same_as_autograd_through_the_scaled_cross_entropy(tiny, channels, temperature):
    net, x = tiny.TinyNet(channels).double(), tiny.images(6, channels).double()
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    probe = ClassifierProbe(net, normalization=Normalization(mean, std))
    (got,) = perturbed_logits(probe, x, temperature, (0.002,))
    z = ((x - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)).requires_grad_()
    logits = net(z)
    functional.cross_entropy(logits / temperature, logits.argmax(1)).backward()
    sign = torch.where(z.grad >= 0, 1.0, -1.0)
    expected = net(z - 0.002 * sign / torch.tensor(std).view(1, -1, 1, 1))
    torch.testing.assert_close(got, expected.detach(), rtol=1e-6, atol=1e-6)


def test_step_in_pixels_is_the_same_with_and_without_normalisation(tiny):
    """eps / std in normalised units is eps in pixels: the guard may normalise, or the classifier itself."""
    net, x = tiny.TinyNet(), tiny.images(5)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    outside = ClassifierProbe(net, normalization=Normalization(mean, std))
    inside = ClassifierProbe(nn.Sequential(Normalization(mean, std), net))
    for a, b in zip(perturbed_logits(outside, x, 1.0, (0.01,)), perturbed_logits(inside, x, 1.0, (0.01,)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_no_parameter_gradient_is_computed_or_kept(tiny):
    net, x = tiny.TinyNet(), tiny.images(4)
    net.fc.weight.grad = torch.full_like(net.fc.weight, 7.0)
    net.stem.weight.requires_grad_(False)
    asking = [p.requires_grad for p in net.parameters()]
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        input_gradient(ClassifierProbe(net), x, 1000.0)
    assert torch.equal(net.fc.weight.grad, torch.full_like(net.fc.weight, 7.0))
    assert all(p.grad is None for n, p in net.named_parameters() if n != "fc.weight")
    assert [p.requires_grad for p in net.parameters()] == asking
    # A linear layer keeps its input only for its weight's gradient.
    assert not any(t.shape == (4, 8) for t in saved)


def test_one_backward_for_a_batch_and_two_forwards(tiny):
    net, x = tiny.TinyNet(), tiny.images(9)
    probe = ClassifierProbe(net)
    probe(x)
    forwards, backwards = [], []
    net.register_forward_hook(lambda *_: forwards.append(1))
    net.stem.register_full_backward_hook(lambda *_: backwards.append(1))
    list(perturbed_logits(probe, x, 1000.0, (0.001,)))
    assert (len(forwards), len(backwards)) == (2, 1)
    list(perturbed_logits(probe, x, 1000.0, (0.0,)))
    assert (len(forwards), len(backwards)) == (3, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_does_not_vanish_in_half_precision(tiny, dtype):
    probe = ClassifierProbe(tiny.TinyNet().to(dtype))
    _, gradient = input_gradient(probe, probe.prepare(tiny.images(4)), 1000.0)
    assert (gradient == 0).float().mean() < 0.2
    _, wide = input_gradient(ClassifierProbe(tiny.TinyNet()), tiny.images(4), 1000.0)
    assert (gradient.float().sign() == wide.sign()).float().mean() > 0.9


def test_runs_inside_inference_mode_and_no_grad(tiny):
    probe, x = ClassifierProbe(tiny.TinyNet()), tiny.images(3)
    expected = list(perturbed_logits(probe, x, 10.0, (0.01,)))
    for context in (torch.inference_mode, torch.no_grad):
        with context():
            assert torch.equal(next(iter(perturbed_logits(probe, x.clone(), 10.0, (0.01,)))), expected[0])


def test_modes_come_back_after_the_gradient(tiny):
    net = tiny.TinyNet()
    net.train()
    list(perturbed_logits(ClassifierProbe(net), tiny.images(2), 1.0, (0.01,)))
    assert all(m.training for m in net.modules())


class Blocked(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                return self.net(x)
        if self.how == "detach":
            return self.net(x.detach())
        if self.how == "round":
            return self.net((x * 255).int().float())
        return self.net(x) * torch.sqrt(x * 0).sum()


@pytest.mark.parametrize("how", ["no_grad", "detach", "round"])
def test_classifier_without_gradient_is_refused(how):
    x = torch.rand(20, 3, 2, 2)
    with pytest.raises(ValueError, match="no gradient reaches the classifier's input"):
        dracones.create("odin", classifier=Blocked(how)).fit(x)
    without = dracones.create("odin", classifier=Blocked(how), epsilon=0.0).fit(x)
    assert len(without.predict(x)) == 20


def test_nan_gradient_is_counted():
    with pytest.raises(ValueError, match="gradient for the input holds 24 NaN"):
        input_gradient(ClassifierProbe(Blocked("nan")), torch.rand(2, 3, 2, 2), 1.0)


def test_score_does_not_depend_on_the_batch(tiny):
    guard = dracones.create("odin", classifier=tiny.TinyNet(), epsilon=0.004).fit(tiny.images(20))
    whole = guard.score(tiny.images(20)).image
    parts = torch.cat([guard.score(x).image for x in tiny.images(20).split(3)])
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=0)


def test_in_distribution_choice_maximises_the_mean_softmax(tiny):
    guard = dracones.create("odin", classifier=tiny.TinyNet(), validation_share=0.3).fit(tiny.images(60))
    assert guard.method.tuning.protocol == "in_distribution"
    assert guard.method.tuning.normal_images == 18
    probe = ClassifierProbe(tiny.TinyNet())
    means = [
        Msp.score(logits, temperature=1000.0).double().mean().item()
        for logits in perturbed_logits(probe, tiny.images(60), 1000.0, (0.0, float(guard.method.epsilon)))
    ]
    assert means[1] < means[0]


def test_choice_by_validation_minimises_fpr_then_maximises_auroc():
    inside = {(1.0, 0.0): np.array([0.1, 0.9]), (1.0, 0.001): np.array([0.1, 0.2]), (1.0, 0.002): np.array([0.1, 0.2])}
    outside = {(1.0, 0.0): np.full(3, 0.5), (1.0, 0.001): np.full(3, 0.5), (1.0, 0.002): np.full(3, 0.5)}
    tuning = choose_by_validation(inside, outside, name="holes")
    assert (tuning.epsilon, tuning.validation_set, tuning.normal_images, tuning.anomalous_images) == (
        0.001,
        "holes",
        2,
        3,
    )


def test_ties_in_distribution_go_to_the_smaller_step():
    assert choose_in_distribution({(1.0, 0.002): np.ones(2), (1.0, 0.0): np.ones(2)}).epsilon == 0.0


def test_the_grid_is_the_papers():
    assert len(EPSILONS) == 21
    assert (EPSILONS[0], EPSILONS[1], EPSILONS[-1]) == (0.0, 0.0002, 0.004)


def test_tune_names_its_set_drops_the_calibration_and_survives_the_file(tiny, tmp_path):
    guard = dracones.create("odin", classifier=tiny.TinyNet(), epsilon=0.0, false_alarm_rate=0.1).fit(tiny.images(100))
    assert guard.threshold is not None
    assert str(guard.method.tuning) == "T=1000, epsilon=0: given by hand"
    guard.tune(tiny.images(30), 1 - tiny.images(40), name="negatives")
    assert guard.threshold is None
    assert len(guard.calibration) == 0
    assert "chosen on 'negatives' (30 normal, 40 anomalous images)" in str(guard.method.tuning)
    again = dracones.load(guard.save(tmp_path / "g.safetensors"), classifier=tiny.TinyNet())
    assert again.method.tuning == guard.method.tuning
    assert isinstance(again.method.tuning, Tuning)
    assert (float(again.method.temperature), float(again.method.epsilon)) == (
        guard.method.tuning.temperature,
        guard.method.tuning.epsilon,
    )
    np.testing.assert_array_equal(again.predict(tiny.images(5)).scores, guard.predict(tiny.images(5)).scores)


def test_tune_insists_on_a_name_and_a_fit(tiny):
    guard = dracones.create("odin", classifier=tiny.TinyNet(), epsilon=0.0)
    with pytest.raises(ValueError, match="not fitted"):
        guard.tune(tiny.images(3), tiny.images(3), name="x")
    with pytest.raises(ValueError, match="name the validation set"):
        guard.fit(tiny.images(10)).tune(tiny.images(3), tiny.images(3), name=" ")


def test_epsilon_is_chosen_on_as_many_images_as_were_asked_for(tiny, monkeypatch):
    seen = []
    grid = Odin.grid
    monkeypatch.setattr(Odin, "grid", lambda self, images, *args: seen.append(len(images)) or grid(self, images, *args))
    for count in (1000, 3):
        dracones.create("odin", classifier=tiny.TinyNet(), epsilon=None, validation_share=0.5, tuning_images=count).fit(
            tiny.images(40)
        )
    assert seen[0] > 3
    assert seen[1] == 3
