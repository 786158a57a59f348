import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from torch import nn

from dracones.training import TrainingConfig, train
from dracones.training.checkpoint import load_checkpoint

# 203 items in batches of 16: 12 steps an epoch, so that most steps lie inside one.
OPTIONS = {"epochs": 6, "batch_size": 16, "device": "cpu", "schedule": "cosine", "warmup": 5, "clip_norm": 1.0}


class Watcher:
    """Sends each step's number down a pipe, so that the parent knows when to strike."""

    def __init__(self, pipe):
        self.pipe = pipe

    def start(self, total, what):
        self.done = 0

    def advance(self, n=1, **numbers):
        self.done += n
        self.pipe.send(self.done)

    def finish(self):
        pass


def run_until_killed(step, *arguments, **options):
    """Train in a process of its own and SIGKILL it when it reports a step; where it is by then, nobody knows."""
    context = get_context("fork")
    mine, theirs = context.Pipe(duplex=False)

    def work():
        train(*arguments, progress=Watcher(theirs), **options)
        # On a busy machine the run may end before the parent gets to strike; it must still be there to be struck.
        time.sleep(60)

    child = context.Process(target=work)
    child.start()
    theirs.close()
    try:
        while mine.recv() < step:
            pass
    except EOFError:
        pytest.fail("the run ended before it could be killed")
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "average": 0.9, "checkpoint_steps": 1},
        {"optimizer": "sgd", "momentum": 0.9, "checkpoint_steps": 5},
        {"optimizer": "rmsprop", "precision": "bf16", "checkpoint_steps": 7, "patience": 3},
        {"optimizer": "adamax", "checkpoint_seconds": 0.0, "validate_steps": 5},
    ],
    ids=lambda options: options["optimizer"],
)
def test_killed_again_and_again_it_ends_with_the_same_bits(denoiser, numbers, same, tmp_path, options):
    config, data, held_out = TrainingConfig(**OPTIONS, **options), numbers, numbers[:40] * 1.1
    undisturbed = denoiser()
    expected = train(undisturbed, data, config, validation=held_out)
    assert expected.steps == 72

    path = tmp_path / "run.safetensors"
    # The steps to strike at differ from run to run of this test; whatever they are, the result must not.
    for step in sorted(random.Random(time.time_ns()).sample(range(9, 60), 2)):
        run_until_killed(step, denoiser(), data, config, validation=held_out, checkpoint=path)
    module = denoiser()
    report = train(module, data, config, validation=held_out, checkpoint=path)
    assert report.resumed_from is not None
    assert report.resumed_from > 0
    assert same(module, undisturbed)
    timeless = {"seconds", "resumed_from", "history"}
    assert report.model_dump(exclude=timeless) == expected.model_dump(exclude=timeless)
    for one, other in zip(report.history, expected.history, strict=True):
        assert one.model_dump(exclude={"seconds"}) == other.model_dump(exclude={"seconds"})


class Augmented(torch.utils.data.Dataset):
    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, index):
        return self.tensor[index] + torch.rand(()) * random.random()


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_too_is_taken_up_where_it_was(denoiser, numbers, same, tmp_path, workers):
    config = TrainingConfig(**OPTIONS, checkpoint_steps=4, workers=workers)
    data = Augmented(numbers)
    undisturbed, module, path = denoiser(), denoiser(), tmp_path / "run"
    train(undisturbed, data, config.model_copy(update={"workers": 0}))
    run_until_killed(30, denoiser(), data, config, checkpoint=path)
    report = train(module, data, config, checkpoint=path)
    assert report.resumed_from > 0
    assert same(module, undisturbed)


def test_a_finished_run_is_read_and_not_trained_again(denoiser, numbers, same, tmp_path):
    config, path = TrainingConfig(**OPTIONS), tmp_path / "deep" / "run"
    first, second = denoiser(), denoiser()
    report = train(first, numbers, config, checkpoint=path)
    written = path.stat().st_mtime_ns
    again = train(second, numbers, config, checkpoint=path)
    assert same(first, second)
    assert (again.resumed_from, again.steps, again.seconds) == (72, 72, report.seconds)
    assert path.stat().st_mtime_ns == written


def test_the_file_holds_tensors_and_json_alone(denoiser, numbers, tmp_path):
    train(denoiser(), numbers, TrainingConfig(**OPTIONS), checkpoint=tmp_path / "run")
    tensors, header = load_checkpoint(tmp_path / "run")
    assert {key.split("/")[0] for key in tensors} == {"module", "optimizer"}
    assert header["position"]["step"] == 72
    assert b"pickle" not in (tmp_path / "run").read_bytes()


def test_another_configuration_is_refused_by_the_names_of_what_differs(denoiser, numbers, tmp_path):
    path = tmp_path / "run"
    train(denoiser(), numbers, TrainingConfig(**OPTIONS), checkpoint=path)
    other = TrainingConfig(**{**OPTIONS, "batch_size": 20, "schedule": "step"})
    message = "batch_size was 16, is 20; schedule was 'cosine', is 'step'. Train as before, or name another"
    with pytest.raises(ValueError, match=message):
        train(denoiser(), numbers, other, checkpoint=path)


def test_another_dataset_or_module_is_refused(denoiser, numbers, tmp_path):
    path, config = tmp_path / "run", TrainingConfig(**OPTIONS)
    train(denoiser(), numbers, config, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="the training data differ"):
        train(denoiser(), numbers + 1, config, checkpoint=path)
    with pytest.raises(ValueError, match="the validation data differ"):
        train(denoiser(), numbers, config, validation=numbers, checkpoint=path)
    with pytest.raises(ValueError, match="module was Denoiser, is Linear"):
        train(nn.Linear(8, 8), numbers, config, checkpoint=path, loss=lambda m, b, g: m(b).mean())
    with pytest.raises(ValueError, match=r"net.0.log_scale was \(8,\), is \(6,\)"):
        train(denoiser(6), numbers[:, :6], config, checkpoint=path)
    assert path.read_bytes() == before


def test_what_only_moves_the_work_may_change(denoiser, numbers, tmp_path):
    path = tmp_path / "run"
    train(denoiser(), numbers, TrainingConfig(**OPTIONS, max_seconds=100), checkpoint=path)
    changed = TrainingConfig(**OPTIONS, threads=1, workers=1, checkpoint_seconds=9, max_seconds=200)
    assert train(denoiser(), numbers, changed, checkpoint=path).resumed_from == 72


def test_a_run_out_of_time_goes_on_with_more_of_it_and_ends_the_same(denoiser, numbers, same, tmp_path):
    path, held_out = tmp_path / "run", numbers[:40]
    short = train(
        denoiser(), numbers, TrainingConfig(**OPTIONS, max_seconds=1e-6), validation=held_out, checkpoint=path
    )
    assert (short.steps, short.stopped_by, len(short.history)) == (1, "max_seconds", 1)
    again = train(
        denoiser(), numbers, TrainingConfig(**OPTIONS, max_seconds=1e-6), validation=held_out, checkpoint=path
    )
    assert (again.steps, again.stopped_by, again.best_validation_loss) == (1, "max_seconds", short.best_validation_loss)
    module, undisturbed = denoiser(), denoiser()
    report = train(module, numbers, TrainingConfig(**OPTIONS, max_seconds=1e6), validation=held_out, checkpoint=path)
    assert (report.steps, report.resumed_from) == (72, 1)
    expected = train(undisturbed, numbers, TrainingConfig(**OPTIONS), validation=held_out)
    assert same(module, undisturbed)
    assert [reading.validation_loss for reading in report.history] == [
        reading.validation_loss for reading in expected.history
    ]


def test_a_disk_that_fills_up_does_not_end_the_run(denoiser, numbers, same, tmp_path, monkeypatch):
    from dracones.training import checkpoint as checkpoint_file

    def full(*arguments):
        raise OSError(28, "No space left on device")

    module, undisturbed = denoiser(), denoiser()
    train(undisturbed, numbers, TrainingConfig(**OPTIONS))
    monkeypatch.setattr(checkpoint_file, "write_tensors", full)
    with pytest.warns(RuntimeWarning, match="training goes on: .*No space left"):
        report = train(module, numbers, TrainingConfig(**OPTIONS, checkpoint_steps=30), checkpoint=tmp_path / "run")
    assert report.failed_checkpoints == 3
    assert same(module, undisturbed)
    assert list(tmp_path.iterdir()) == []


def test_state_that_is_no_tensor_is_refused(numbers, tmp_path):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(TypeError, match=r"_extra_state.*make them buffers"):
        train(
            Odd(8, 1),
            numbers,
            TrainingConfig(**OPTIONS),
            checkpoint=tmp_path / "run",
            loss=lambda m, b, g: m(b).mean() ** 2,
        )


def test_a_fresh_python_takes_up_what_another_left_when_it_was_killed(tmp_path):
    import importlib.util

    script = Path(__file__).with_name("killable_run.py")
    command = [sys.executable, str(script), str(tmp_path / "run")]
    first = subprocess.Popen([*command, "linger"], stdout=subprocess.PIPE, text=True)
    # 18 steps an epoch: most of these lie inside one.
    strike = random.Random(time.time_ns()).randrange(20, 70)
    while int(first.stdout.readline()) < strike:
        pass
    first.kill()
    assert first.wait(30) == -signal.SIGKILL
    first.stdout.close()
    taken_up = load_checkpoint(tmp_path / "run")[1]["position"]["step"]
    assert taken_up >= 18

    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = second.stdout.split()
    assert int(lines[0]) == taken_up
    spec = importlib.util.spec_from_file_location("killable_run", script)
    undisturbed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(undisturbed)
    assert lines[-1] == undisturbed.run(None)
