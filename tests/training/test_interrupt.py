"""Ctrl-C in the middle of a run."""

import signal
import sys

import pytest
import torch
from torch import nn

from dracones.training import TrainingConfig, train

CONFIG = TrainingConfig(epochs=4, batch_size=8, device="cpu")
DATA = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def training_loss(self, batch, *, generator=None):
        return ((batch - self.weight) ** 2).mean()


class PressedAt:
    """Ctrl-C when this many steps are done, and so often."""

    def __init__(self, step, times=1):
        self.step, self.times, self.done = step, times, 0

    def start(self, total, what):
        pass

    def advance(self, n=1, **numbers):
        self.done += n
        if self.done == self.step and "loss" in numbers:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def finish(self):
        pass


@pytest.fixture(autouse=True)
def usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_the_step_is_ended_kept_and_gone_on_from(tmp_path):
    whole, stopped = Line(), Line()
    train(whole, DATA, CONFIG)
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=r"step 7 of 20; the same again goes on from there \(.*run\)"):
        train(stopped, DATA, CONFIG, checkpoint=path, progress=PressedAt(7))
    again = Line()
    report = train(again, DATA, CONFIG, checkpoint=path)
    assert report.resumed_from == 7
    assert torch.equal(again.weight, whole.weight)


def test_without_a_checkpoint_it_says_that_nothing_was_kept():
    with pytest.raises(KeyboardInterrupt, match="step 3 of 20; nothing was kept"):
        train(Line(), DATA, CONFIG, progress=PressedAt(3))


def test_the_second_ends_it_at_once(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as ended:
        train(Line(), DATA, CONFIG, checkpoint=path, progress=PressedAt(7, times=2))
    assert not str(ended.value)
    assert not path.exists()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_handler_of_somebody_elses_is_left_alone(handler):
    signal.signal(signal.SIGINT, handler)
    try:
        assert train(Line(), DATA, CONFIG, progress=PressedAt(5)).steps == 20
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_command_says_so_and_ends_with_130(tmp_path, monkeypatch, capsys):
    import numpy as np

    from dracones.cli import main
    from dracones.training import RichProgress

    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    model = tmp_path / "m.safetensors"
    options = ["--set", "epochs=2", "--set", "density.steps=1", "--set", "density.hidden=4", "--set", "batch_size=8"]
    command = ["dracones", "fit", "glow", str(tmp_path / "images.npy"), "-o", str(model), *options]
    monkeypatch.setattr(sys, "argv", command)
    pressed = PressedAt(3)
    with monkeypatch.context() as patched:
        patched.setattr(RichProgress, "start", lambda self, total, what: setattr(pressed, "done", 0))
        patched.setattr(RichProgress, "advance", lambda self, n=1, **numbers: pressed.advance(n, **numbers))
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 130
    assert "stopped at step 3 of" in capsys.readouterr().err
    assert model.with_name("m.safetensors.checkpoint").exists()
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert model.exists()
    assert not model.with_name("m.safetensors.checkpoint").exists()
