import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from dracones.training import Progress, TrainingConfig, train
from dracones.training.order import Order
from dracones.training.progress import Silent

CPU = {"device": "cpu", "batch_size": 32}


def plain_loss(module, batch, generator):
    return ((module(batch) - batch) ** 2).mean()


def test_weights_are_those_of_a_loop_written_by_hand(numbers):
    config = TrainingConfig(epochs=4, optimizer="adam", schedule="step", clip_norm=0.3, average=0.8, seed=5, **CPU)
    mine = nn.Linear(8, 8)
    bare = copy.deepcopy(mine)
    report = train(mine, numbers, config, loss=plain_loss)

    optimizer = torch.optim.Adam(bare.parameters(), lr=1e-3)
    order = Order(203, 32, seed=5)
    mean = copy.deepcopy(bare)
    for step in range(24):
        optimizer.param_groups[0]["lr"] = 1e-3 * (0.25 if step >= 21.6 else 0.5 if step >= 19.2 else 1.0)
        optimizer.zero_grad()
        ((bare(numbers[order.indices(step)]) - numbers[order.indices(step)]) ** 2).mean().backward()
        assert nn.utils.clip_grad_norm_(bare.parameters(), 0.3) > 0.3
        optimizer.step()
        decay = min(0.8, (2 + step) / (11 + step))
        for average, live in zip(mean.parameters(), bare.parameters(), strict=True):
            average.data = decay * average.data + (1 - decay) * live.data
    assert (report.steps, report.epochs, report.images, report.stopped_by) == (24, 4.0, 768, "epochs")
    torch.testing.assert_close(mine.state_dict(), mean.state_dict(), rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_bits_whatever_the_global_generators_hold(denoiser, numbers, same):
    modules = []
    for state in (1, 2):
        torch.manual_seed(state)
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002
        modules.append(denoiser())
        train(modules[-1], numbers, TrainingConfig(epochs=2, **CPU))
    assert same(*modules)
    other = denoiser()
    train(other, numbers, TrainingConfig(epochs=2, seed=1, **CPU))
    assert not same(other, modules[0])


def test_the_global_generators_are_left_as_found(denoiser, numbers):
    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return numbers[index] * torch.rand(()) * random.random() * np.random.rand()  # noqa: NPY002

    module = denoiser()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(module, Items(), TrainingConfig(epochs=2, **CPU), validation=Items())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_early_stop_ends_with_the_best_weights(numbers):
    """Training turns round after five epochs: the loss falls, then rises."""
    module = nn.Linear(8, 8)
    held_out = numbers[:64]
    seen = []

    def loss(module, batch, generator):
        climbing = module.training and len(seen) >= 5
        return plain_loss(module, batch, generator) * (-1.0 if climbing else 1.0)

    class Count:
        def start(self, total, what):
            pass

        def advance(self, n=1, **numbers):
            if "validation_loss" in numbers:
                seen.append((numbers["validation_loss"], copy.deepcopy(module.state_dict())))

        def finish(self):
            pass

    config = TrainingConfig(epochs=50, patience=3, learning_rate=0.02, **CPU)
    report = train(module, numbers, config, validation=held_out, loss=loss, progress=Count())
    assert report.stopped_by == "patience"
    best = min(range(len(seen)), key=lambda place: seen[place][0])
    assert best == 4
    assert len(seen) == best + 1 + 3
    assert report.best_step == 6 * (best + 1)
    assert report.best_validation_loss == seen[best][0]
    torch.testing.assert_close(module.state_dict(), seen[best][1], rtol=0, atol=0)
    assert [reading.validation_loss for reading in report.history] == [value for value, _ in seen]


def test_a_run_that_gains_nothing_ends_where_it_began(numbers, tmp_path):
    module = nn.Linear(8, 8)
    began = copy.deepcopy(module.state_dict())
    config = TrainingConfig(epochs=50, patience=3, learning_rate=50.0, validate_start=True, **CPU)
    report = train(module, numbers, config, validation=numbers[:32], loss=plain_loss, checkpoint=tmp_path / "run")
    assert (report.stopped_by, report.best_step) == ("patience", 0)
    assert report.history[0].step == 0
    assert report.history[0].train_loss is None
    assert report.best_validation_loss == report.history[0].validation_loss
    assert len(report.history) == 1 + 3
    torch.testing.assert_close(module.state_dict(), began, rtol=0, atol=0)
    # What is on disk knows it too: taken up again, the run is at its end and gives the same.
    again = nn.Linear(8, 8)
    taken_up = train(again, numbers, config, validation=numbers[:32], loss=plain_loss, checkpoint=tmp_path / "run")
    assert taken_up.best_step == 0
    torch.testing.assert_close(again.state_dict(), began, rtol=0, atol=0)


def test_a_run_that_is_taken_up_does_not_read_its_start_again(numbers, tmp_path):
    class CutAfterSevenSteps(Silent):
        def advance(self, n=1, **numbers):
            self.steps = getattr(self, "steps", 0) + n
            if self.steps == 8:
                raise InterruptedError

    config = TrainingConfig(epochs=2, validate_start=True, checkpoint_steps=1, **CPU)
    arguments = {"validation": numbers[:32], "loss": plain_loss, "checkpoint": tmp_path / "run"}
    with pytest.raises(InterruptedError):
        train(nn.Linear(8, 8), numbers, config, **arguments, progress=CutAfterSevenSteps())
    report = train(nn.Linear(8, 8), numbers, config, **arguments)
    assert report.resumed_from == 7
    assert [reading.step for reading in report.history] == [0, 6, 12]


def test_without_held_out_data_a_start_is_not_read(numbers):
    report = train(nn.Linear(8, 8), numbers, TrainingConfig(epochs=1, validate_start=True, **CPU), loss=plain_loss)
    assert [reading.step for reading in report.history] == [report.steps]


def test_min_improvement_and_restore_best_can_be_set(numbers):
    module = nn.Linear(8, 8)
    config = TrainingConfig(epochs=50, patience=2, min_improvement=1e9, restore_best=False, **CPU)
    report = train(module, numbers, config, validation=numbers[:32], loss=plain_loss)
    assert (report.stopped_by, report.best_step, report.steps) == ("patience", 6, 18)
    with torch.no_grad():
        assert plain_loss(module, numbers[:32], None) < report.best_validation_loss


def test_validation_sees_every_item_once_in_eval_mode_with_the_same_noise(denoiser, numbers):
    module = denoiser()
    held_out = numbers[:50] * 2
    config = TrainingConfig(max_steps=6, learning_rate=1e-12, validate_steps=2, **CPU)

    def loss(module, batch, generator):
        if module.training:
            return (module.net[1].weight * 1e-9).sum()
        noise = torch.rand(len(batch), 1, generator=generator)
        return (batch + noise).mean()

    report = train(module, numbers, config, validation=held_out, loss=loss)
    values = [reading.validation_loss for reading in report.history]
    assert [reading.step for reading in report.history] == [2, 4, 6]
    assert values[0] == values[1] == values[2]
    assert abs(values[0] - float(held_out.mean()) - 0.5) < 0.2

    exact = train(
        module, numbers, config, validation=held_out, loss=lambda m, b, g: b.mean() + 0 * m.net[1].weight.sum()
    )
    assert exact.history[0].validation_loss == pytest.approx(float(held_out.mean()), rel=1e-5)


def test_validation_of_an_averaged_run_is_of_the_average(numbers):
    module = nn.Linear(8, 8)
    config = TrainingConfig(epochs=2, average=0.9, learning_rate=0.01, **CPU)
    report = train(module, numbers, config, validation=numbers[:32], loss=plain_loss)
    with torch.no_grad():
        assert float(plain_loss(module, numbers[:32], None)) == pytest.approx(report.best_validation_loss, rel=1e-6)


def test_bf16_runs_layers_in_bfloat16_and_keeps_float32_weights(numbers):
    module, seen = nn.Linear(8, 8), set()

    def loss(module, batch, generator):
        output = module(batch)
        seen.add(output.dtype)
        return ((output.float() - batch) ** 2).mean()

    report = train(module, numbers, TrainingConfig(epochs=20, precision="bf16", **CPU), loss=loss)
    assert seen == {torch.bfloat16}
    assert module.weight.dtype == torch.float32
    assert report.history[-1].train_loss < report.history[0].train_loss


def test_time_budget_ends_the_run_and_leads_the_schedule(numbers):
    config = TrainingConfig(max_seconds=0.3, schedule="cosine", **CPU)
    report = train(nn.Linear(8, 8), numbers, config, loss=plain_loss)
    assert report.stopped_by == "max_seconds"
    assert 0.3 <= report.seconds < 20.0
    rates = [reading.learning_rate for reading in report.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1e-3 < rates[0]


def test_frozen_parts_in_eval_mode_stay_there_and_do_not_move(numbers):
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).requires_grad_(False).eval()
            self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 8))

        def training_loss(self, batch, *, generator=None):
            assert not self.backbone[1].training
            assert self.head[0].training == self.head[1].training == self.training
            return ((self.head(self.backbone(batch)) - batch) ** 2).mean()

    module = Embedded()
    before = copy.deepcopy(module.backbone.state_dict())
    for _ in range(2):
        train(module, numbers, TrainingConfig(epochs=1, **CPU), validation=numbers[:32])
        assert not any(part.training for part in module.modules())
    torch.testing.assert_close(module.backbone.state_dict(), before, rtol=0, atol=0)
    assert int(module.head[0].num_batches_tracked) == 12


def test_progress_is_told_the_length_every_step_and_the_end():
    class Diary:
        def __init__(self):
            self.calls = []

        def start(self, total, what):
            self.calls.append(("start", total, what))

        def advance(self, n=1, **numbers):
            self.calls.append(("advance", n, numbers))

        def finish(self):
            self.calls.append(("finish",))

    diary, data = Diary(), torch.ones(64, 8)
    assert isinstance(diary, Progress)
    train(nn.Linear(8, 8), data, TrainingConfig(epochs=3, **CPU), loss=plain_loss, validation=data, progress=diary)
    assert diary.calls[0] == ("start", 6, "training")
    assert diary.calls[-1] == ("finish",)
    steps = [call for call in diary.calls if call[0] == "advance" and call[1] == 1]
    assert len(steps) == 6
    assert set(steps[-1][2]) == {"loss", "images_per_second", "seconds_left", "skipped_steps"}
    assert steps[-1][2]["images_per_second"] > 0
    assert steps[-1][2]["seconds_left"] == 0
    assert sum("validation_loss" in call[2] for call in diary.calls if call[0] == "advance") == 3


def test_progress_is_finished_where_training_fails():
    ended = []

    class Diary:
        def start(self, total, what):
            pass

        def advance(self, n=1, **numbers):
            pass

        def finish(self):
            ended.append(True)

    def failing(module, batch, generator):
        raise KeyError("mine")

    module, threads, state = nn.Linear(1, 1), torch.get_num_threads(), torch.get_rng_state()
    with pytest.raises(KeyError, match="mine"):
        train(module, torch.ones(3, 1), TrainingConfig(threads=3, **CPU), loss=failing, progress=Diary())
    assert ended == [True]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_hold_for_the_run_alone():
    seen = set()

    def loss(module, batch, generator):
        seen.add(torch.get_num_threads())
        return module(batch).mean()

    before = torch.get_num_threads()
    train(nn.Linear(8, 1), torch.ones(64, 8), TrainingConfig(epochs=1, threads=before + 1, **CPU), loss=loss)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("module", "data", "loss", "error", "message"),
    [
        (nn.Linear(1, 1), torch.ones(4, 1), None, TypeError, r"Linear has no training_loss\(batch, generator=...\)"),
        (nn.ReLU(), torch.ones(4, 1), plain_loss, ValueError, "ReLU has no parameter that requires a gradient"),
        (nn.Linear(1, 1), torch.ones(0, 1), plain_loss, ValueError, "the dataset is empty"),
        (nn.Linear(1, 1), torch.ones(4, 1), lambda m, b, g: m(b), ValueError, r"scalar tensor; got shape \(4, 1\)"),
        (nn.Linear(1, 1), torch.ones(4, 1), lambda m, b, g: 1.0, ValueError, "scalar tensor; got float"),
        (nn.Linear(1, 1), torch.ones(4, 1), lambda m, b, g: b.mean(), ValueError, "carries no gradient"),
    ],
)
def test_what_cannot_be_trained_is_refused(module, data, loss, error, message):
    with pytest.raises(error, match=message):
        train(module, data, TrainingConfig(device="cpu"), loss=loss)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used here"):
        train(nn.Linear(1, 1), torch.ones(4, 1), TrainingConfig(device="cuda:99"), loss=plain_loss)


def test_empty_validation_data_are_refused():
    with pytest.raises(ValueError, match="validation data are empty"):
        train(
            nn.Linear(1, 1),
            torch.ones(4, 1),
            TrainingConfig(device="cpu"),
            loss=plain_loss,
            validation=torch.ones(0, 1),
        )


def test_a_non_finite_validation_loss_is_never_the_best(numbers):
    values = iter([float("nan"), 2.0, float("-inf"), 3.0])

    def loss(module, batch, generator):
        return module(batch).mean() ** 2 if module.training else torch.tensor(next(values))

    config = TrainingConfig(epochs=4, **CPU)
    report = train(nn.Linear(8, 1), numbers, config, validation=numbers[:9], loss=loss)
    assert (report.best_validation_loss, report.best_step) == (2.0, 12)
    assert [reading.validation_loss for reading in report.history] == [None, 2.0, None, 3.0]


def test_the_report_is_json(denoiser, numbers):
    report = train(denoiser(), numbers, TrainingConfig(epochs=2, **CPU), validation=numbers[:9])
    assert type(report).model_validate_json(report.model_dump_json()) == report
    assert math.isclose(report.images_per_second, report.images / report.seconds)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu(numbers, tmp_path, precision):
    class Net(nn.Linear):
        def training_loss(self, batch, *, generator):
            assert batch.is_cuda
            noise = torch.randn(batch.shape, generator=generator, device=batch.device)
            return ((self(nn.functional.dropout(batch, 0.1) + 0.1 * noise) - batch) ** 2).mean()

    config = TrainingConfig(
        epochs=20, precision=precision, device="cuda", batch_size=32, checkpoint_steps=5, average=0.9
    )
    state = torch.cuda.get_rng_state()
    module = Net(8, 8)
    report = train(module, numbers, config, validation=numbers[:40], checkpoint=tmp_path / "run")
    assert module.weight.is_cuda
    assert report.device == "cuda:0"
    assert report.history[-1].train_loss < report.history[0].train_loss
    assert torch.equal(torch.cuda.get_rng_state(), state)
    again = Net(8, 8)
    assert (
        train(again, numbers, config, validation=numbers[:40], checkpoint=tmp_path / "run").resumed_from == report.steps
    )
    assert torch.equal(again.weight, module.weight)
