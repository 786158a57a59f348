"""Short runs of the fuzzers whose long runs stand in `benchmarks/robustness`: nothing silent, nothing bare."""

import importlib
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
    assert (found["silent"], found["bare"], found["unrepaired"]) == ([], [], [])
    assert found["outcomes"]["said and computed anew"] > 80


def test_images_and_arrays(capfd):
    fuzz = importlib.import_module("benchmarks.robustness.fuzz_images")
    tally = fuzz.fuzz(720, seed=7)
    assert {name: getattr(tally, name) for name in fuzz.FAILURES} == {name: [] for name in fuzz.FAILURES}
    assert sum(count for what, count in tally.outcomes.items() if "read" in what) > 200
    assert sum(count for what, count in tally.outcomes.items() if "refused" in what) > 200
    assert sum(tally.outcomes.values()) == 720
    assert capfd.readouterr() == ("", ""), "a library spoke, and nobody knows of which file"
