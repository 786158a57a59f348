import io
import sys

import pytest

from dracones.training import Progress, RichProgress, Silent
from dracones.training import progress as progress_file
from dracones.training.progress import describe


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_file.time, "monotonic", clock.monotonic)
    return clock


def test_both_keep_the_protocol():
    assert isinstance(Silent(), Progress)
    assert isinstance(RichProgress(), Progress)


def test_silence(capsys):
    quiet = Silent()
    quiet.start(3, "nothing")
    quiet.advance(3, loss=1.0)
    quiet.finish()
    assert capsys.readouterr() == ("", "")


def test_plain_lines_on_standard_error_far_apart(clock, capsys):
    bar = RichProgress(lines_every=10.0)
    bar.start(100, "training")
    for _ in range(50):
        clock.now += 1.0
        bar.advance(1, loss=0.5, images_per_second=32.0)
    bar.finish()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "training 10/100 loss 0.5 · 32 images/s · 1:30 left"
    assert len(lines) == 6


def test_a_short_piece_of_work_is_not_mentioned(clock, capsys):
    bar = RichProgress()
    bar.start(2, "training")
    bar.advance(2)
    clock.now = 1.0
    bar.finish()
    assert capsys.readouterr().err == ""


def test_time_left_is_measured_from_where_a_resumed_run_began(clock, capsys):
    bar = RichProgress(lines_every=5.0)
    bar.start(1000, "training")
    bar.advance(900)
    for _ in range(5):
        clock.now += 1.0
        bar.advance(10)
    bar.finish()
    assert capsys.readouterr().err.splitlines()[0] == "training 950/1000 0:05 left"


def test_on_a_terminal_a_bar_is_drawn_and_closed(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = RichProgress(interval=0.0)
    for what in ("training", "scoring"):
        bar.start(4, what)
        for _ in range(4):
            bar.advance(1, loss=2.0)
        bar.finish()
    drawn = terminal.getvalue()
    assert "training" in drawn
    assert "scoring" in drawn
    assert "4/4" in drawn
    assert "loss 2" in drawn


def test_unknown_length_and_use_before_start(clock, capsys):
    bar = RichProgress(lines_every=1.0)
    bar.advance(1)
    bar.finish()
    bar.start(None, "[odd] name")
    clock.now = 1.5
    bar.advance(3, seconds_left=3700.0)
    bar.finish()
    assert capsys.readouterr().err.splitlines() == ["[odd] name 3 1:01:40 left"]


@pytest.mark.parametrize(
    ("numbers", "left", "words"),
    [
        ({}, None, ""),
        ({"validation_loss": 3.14159}, None, "validation loss 3.142"),
        ({"skipped_steps": 0}, 0.2, "0:00 left"),
        ({"skipped_steps": 2}, None, "2 steps skipped"),
        ({"images_per_second": 0.123}, None, "0.12 images/s"),
        ({"loss": float("nan")}, 59.7, "loss nan · 1:00 left"),
    ],
)
def test_words(numbers, left, words):
    assert describe(numbers, left) == words
