import pytest
import torch
from torch import nn

from dracones.training import NonFiniteError, TrainingConfig, train
from dracones.training.guard import Rollback, where_nonfinite

CPU = {"device": "cpu", "batch_size": 20}


class Breaks(nn.Module):
    """Multiplies by NaN where a batch holds a number above 100."""

    def forward(self, x):
        return torch.where(x.max() > 100, float("nan"), 1.0) * x


class Encodes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Breaks()

    def encode(self, x):
        return self.inner(x) if x.mean() > 1e9 else torch.where(x.max() > 100, float("inf"), 1.0) * x, x.sum()


class Net(nn.Module):
    def __init__(self, broken):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.middle = nn.Sequential(nn.Identity(), broken)
        self.last = nn.Linear(8, 8)

    def training_loss(self, batch, *, generator=None):
        hidden = self.norm(batch) * 0 + batch
        for layer in self.middle:
            hidden = layer.encode(hidden)[0] if hasattr(layer, "encode") else layer(hidden)
        return (self.last(hidden).mean() + self.first(batch).mean()) ** 2


def data_with_bad_batches(bad: float, numbers):
    spoilt = numbers[:200].clone()
    spoilt[::50] = bad
    return spoilt


def finite(module):
    return all(torch.isfinite(value).all() for value in module.state_dict().values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_bad_batches_are_skipped_counted_and_leave_no_trace(denoiser, numbers, bad):
    module = denoiser()
    report = train(module, data_with_bad_batches(bad, numbers), TrainingConfig(epochs=12, max_nonfinite=1000, **CPU))
    assert finite(module)
    assert 12 <= report.skipped_steps <= 48
    assert report.steps == 120
    assert all(torch.isfinite(torch.tensor(reading.train_loss)) for reading in report.history)


def test_weights_are_those_of_a_run_that_never_saw_the_bad_batches(denoiser, numbers, same):
    """The skipped step draws no noise, moves no running mean and no moment: only its number is used up."""
    good, bad = numbers[:20], torch.full((20, 8), float("nan"))

    def loss_with_bad_steps(module, batch, generator):
        step = steps.pop(0)
        return module.training_loss(bad if step in skipped else good, generator=generator)

    skipped, results = {0, 1, 4, 5, 9}, []
    for spoilt in (skipped, set()):
        module, steps, skipped = denoiser(dropout=0.0, noise=0.0), list(range(12)), spoilt
        applied = 12 if spoilt else 7
        train(module, good, TrainingConfig(max_steps=applied, **CPU), loss=loss_with_bad_steps)
        results.append(module)
    assert same(*results)


def test_self_initialisation_is_not_taken_from_a_bad_batch(denoiser, numbers):
    module, batches = denoiser(noise=0.0), [torch.full((20, 8), float("nan")), numbers[:20] * 7]
    rollback = Rollback(module)
    for batch in batches:
        rollback.remember()
        loss = module.training_loss(batch)
        rollback.watch()
        if not torch.isfinite(loss):
            assert module.net[0].initialised
            rollback.restore()
            assert not module.net[0].initialised
            assert torch.equal(module.net[0].log_scale, torch.zeros(8))
    torch.testing.assert_close(module.net[0].log_scale.detach(), -batches[1].std(0).add(1e-3).log())


class ScalesFromFirstFinite(nn.Module):
    """Takes its scale from the first batch without NaN, so that bad batches do not show what it writes to."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.zeros(()))
        self.weight = nn.Parameter(torch.ones(8))

    def training_loss(self, batch, *, generator=None):
        if self.training and self.scale == 0 and torch.isfinite(batch).all():
            self.scale.copy_(batch.abs().max() ** 0.25)
        return ((self.weight * batch / self.scale) ** 2).mean()


def test_what_is_written_after_three_bad_steps_is_still_undone(numbers, same):
    """Three batches of NaN teach nothing of what a forward pass writes to; the fourth, finite, overflows its loss."""
    good = numbers[:20]
    bad = [torch.full((20, 8), float("nan"))] * 3 + [torch.full((20, 8), 3e38)]
    results = []
    for batches in ([*bad, good, good], [good, good]):
        module, left = ScalesFromFirstFinite(), list(batches)

        def loss(module, batch, generator, left=left):
            return module.training_loss(left.pop(0), generator=generator)

        report = train(module, good, TrainingConfig(max_steps=len(batches), **CPU), loss=loss)
        assert report.skipped_steps == len(batches) - 2
        results.append(module)
    assert same(*results)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Breaks(), r"layer 'middle.1' \(Breaks\) is the first to give 160 non-finite values"),
        (Encodes(), r"layer 'middle.1' \(Encodes\) is the first to give"),
    ],
    ids=["forward", "encode"],
)
def test_too_many_in_a_row_stop_with_the_layer_s_name(broken, message):
    module = Net(broken)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(NonFiniteError, match=message) as error:
        train(module, torch.full((60, 8), 101.0), TrainingConfig(epochs=9, max_nonfinite=5, **CPU))
    assert "5 steps in a row" in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any("encode" in vars(layer) or "forward" in vars(layer) for layer in module.modules())


def test_parameter_batch_loss_and_gradient_are_told_apart():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.at = nn.Parameter(torch.zeros(3))
            self.outer = nn.Linear(3, 3)

    module, batch = Root(), torch.ones(2, 3)
    loss = lambda: (self_loss(module)).sum()  # noqa: E731
    self_loss = lambda module: module.at.abs().sqrt()  # noqa: E731
    assert "gradient of parameter 'at' is not" in where_nonfinite(module, batch, loss)
    self_loss = lambda module: module.at / 0  # noqa: E731
    assert "the loss made from them is nan" in where_nonfinite(module, batch, loss)
    assert "batch itself holds 6" in where_nonfinite(module, {"x": [batch / 0]}, loss)
    self_loss = lambda module: module.at  # noqa: E731
    assert "does not occur again" in where_nonfinite(module, batch, loss)
    with torch.no_grad():
        module.outer.weight[1, 2] = float("inf")
    assert "parameter 'outer.weight' holds 1 non-finite of 9" in where_nonfinite(module, batch, loss)


def test_a_finite_step_in_between_starts_the_count_anew(numbers):
    calls = []

    def loss(module, batch, generator):
        calls.append(1)
        return module(batch).mean() ** 2 * (1.0 if len(calls) % 5 == 0 else float("nan"))

    report = train(nn.Linear(8, 1), numbers, TrainingConfig(max_steps=50, max_nonfinite=5, **CPU), loss=loss)
    assert report.skipped_steps == 40
