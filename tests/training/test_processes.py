"""Two processes on the CPU, over gloo, started by Accelerate's own launcher."""

import pytest
import torch
from torch import nn

from dracones.training import TrainingConfig, train
from dracones.training.checkpoint import load_checkpoint

OPTIONS = {"epochs": 3, "batch_size": 16, "device": "cpu", "clip_norm": 1.0, "average": 0.9}


def launch(function, *arguments):
    from accelerate import debug_launcher

    debug_launcher(_in_fresh_state, (function, *arguments), num_processes=2)


def _in_fresh_state(function, *arguments):
    # The processes are forked from one that may have trained alone, and would inherit that it is alone.
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    function(*arguments)


def linear(width=8):
    module = nn.Linear(width, width)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.linspace(-0.3, 0.3, parameter.numel()).reshape(parameter.shape))
    return module


def plain_loss(module, batch, generator):
    return ((module(batch) - batch) ** 2).mean()


def save(module, report, folder):
    torch.save(module.state_dict(), folder / f"{torch.distributed.get_rank()}.pt")
    (folder / f"{torch.distributed.get_rank()}.json").write_text(report.model_dump_json())


def load(folder, rank):
    from dracones.training import TrainingReport

    state = torch.load(folder / f"{rank}.pt", weights_only=True)
    return state, TrainingReport.model_validate_json((folder / f"{rank}.json").read_text())


def _train_plain(numbers, folder, drop_last):
    module = linear()
    report = train(
        module, numbers, TrainingConfig(**OPTIONS, drop_last=drop_last), validation=numbers[:51], loss=plain_loss
    )
    save(module, report, folder)


@pytest.mark.parametrize("drop_last", [True, False])
def test_two_processes_train_as_one_does(numbers, tmp_path, drop_last):
    launch(_train_plain, numbers[:202], tmp_path, drop_last)
    alone = linear()
    config = TrainingConfig(**OPTIONS, drop_last=drop_last)
    expected = train(alone, numbers[:202], config, validation=numbers[:51], loss=plain_loss)
    for rank in range(2):
        state, report = load(tmp_path, rank)
        torch.testing.assert_close(state, dict(alone.state_dict()), rtol=1e-4, atol=1e-6)
        assert (report.processes, report.steps, report.images) == (2, expected.steps, expected.images)
        for one, other in zip(report.history, expected.history, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
            assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)


class Watcher:
    def __init__(self):
        self.calls = 0

    def start(self, total, what):
        self.calls += 1

    def advance(self, n=1, **numbers):
        self.calls += 1

    def finish(self):
        self.calls += 1


def _train_with_everything(module, numbers, folder, checkpoint):
    steps = []

    def loss(module, batch, generator):
        steps.append(module.training)
        if checkpoint == "interrupted" and sum(steps) == 19:
            raise KeyboardInterrupt
        return module.training_loss(batch, generator=generator)

    spoilt = numbers[:192].clone()
    spoilt[::97] = float("nan")
    config = TrainingConfig(**OPTIONS, checkpoint_steps=5)
    path, watcher = None if checkpoint is None else folder / "run", Watcher()
    try:
        report = train(module, spoilt, config, validation=numbers[:33], checkpoint=path, progress=watcher, loss=loss)
    except KeyboardInterrupt:
        torch.distributed.barrier()
    else:
        save(module, report, folder)
    assert (watcher.calls > 0) == (torch.distributed.get_rank() == 0)


def test_self_initialisation_noise_dropout_and_bad_steps_stay_in_step_and_resume(denoiser, numbers, tmp_path):
    results = []
    for checkpoint in (None, "interrupted", "resumed"):
        launch(_train_with_everything, denoiser(), numbers, tmp_path, checkpoint)
        if checkpoint == "interrupted":
            assert load_checkpoint(tmp_path / "run")[1]["position"]["step"] == 15
            continue
        (first, report), (second, other) = load(tmp_path, 0), load(tmp_path, 1)
        parameters = [key for key, _ in denoiser().named_parameters()]
        assert all(torch.equal(first[key], second[key]) for key in parameters)
        assert all(torch.isfinite(first[key]).all() for key in first)
        assert 3 <= report.skipped_steps == other.skipped_steps <= 6
        results.append(first)
    assert report.resumed_from == 15
    assert all(torch.equal(results[0][key], results[1][key]) for key in parameters)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = linear(), linear()

    def training_loss(self, batch, *, generator):
        return plain_loss(self.used, batch, generator)


def _train_two_heads(numbers, folder):
    module = TwoHeads()
    save(module, train(module, numbers, TrainingConfig(**OPTIONS)), folder)


def test_a_parameter_without_a_gradient_is_no_obstacle(numbers, tmp_path):
    launch(_train_two_heads, numbers, tmp_path)
    (first, report), (second, _) = load(tmp_path, 0), load(tmp_path, 1)
    assert report.steps == 36
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.equal(first["unused.weight"], linear().weight)


def _refuse(numbers):
    train(linear(), numbers, TrainingConfig(max_steps=1, batch_size=2, device="cpu:0"), loss=plain_loss)
    with pytest.raises(ValueError, match="2 processes and must be a multiple of that; got 15"):
        train(linear(), numbers, TrainingConfig(batch_size=15, device="cpu"), loss=plain_loss)
    with pytest.raises(ValueError, match="were launched on cpu; got device='cuda'"):
        train(linear(), numbers, TrainingConfig(device="cuda"), loss=plain_loss)


def test_what_two_processes_cannot_share_is_refused(numbers):
    launch(_refuse, numbers)
