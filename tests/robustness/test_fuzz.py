"""Short runs of the fuzzers whose long runs stand in `benchmarks/robustness`: nothing silent, nothing bare."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_model_files(tmp_path):
    fuzz = importlib.import_module("benchmarks.robustness.fuzz_models")
    subjects = importlib.import_module("benchmarks.robustness.subjects")
    made = subjects.make(tmp_path, ("glow", "fastflow", "patchcore", "knn", "odin"))
    tally = fuzz.fuzz(made, 300, seed=7)
    assert tally.silent == []
    assert tally.unclean == []
    assert tally.greedy == []
    assert tally.outcomes["refused"] > 200
    assert tally.slow == []


def test_cache_entries():
    fuzz = importlib.import_module("benchmarks.robustness.fuzz_cache")
    found = fuzz.fuzz(100, seed=7)
    assert {name: found[name] for name in fuzz.FAILURES} == {name: [] for name in fuzz.FAILURES}
    assert found["outcomes"]["said and computed anew"] > 80


def test_images_and_arrays(capfd):
    fuzz = importlib.import_module("benchmarks.robustness.fuzz_images")
    tally = fuzz.fuzz(720, seed=7)
    assert {name: getattr(tally, name) for name in fuzz.FAILURES} == {name: [] for name in fuzz.FAILURES}
    assert sum(count for what, count in tally.outcomes.items() if "read" in what) > 200
    assert sum(count for what, count in tally.outcomes.items() if "refused" in what) > 200
    assert sum(tally.outcomes.values()) == 720
    assert capfd.readouterr() == ("", ""), "a library spoke, and nobody knows of which file"


def test_effort_sees_what_a_block_holds_and_lets_no_earlier_block_hide_it():
    watch = importlib.import_module("benchmarks.robustness.effort")
    grown = []
    for megabytes in (200, 80, 0):  # the largest first: its mark must not cover the next
        with watch.effort() as spent:
            bytes(b"x" * (megabytes << 20))
        grown.append(spent.megabytes)
    slow, greedy = [], []
    spent.note("nothing", slow, greedy, megabytes=64)
    watch.Effort(seconds=9, megabytes=grown[1]).note("file", slow, greedy, megabytes=64)
    assert grown[0] > 150
    assert grown[2] < 30
    if sys.platform == "linux":
        assert 60 < grown[1] < 200
        assert [each.split(" ")[0] for each in slow + greedy] == ["file", "file"]
