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
    assert tally.slowest < 60  # seconds; a machine under load


def test_cache_entries():
    fuzz = importlib.import_module("benchmarks.robustness.fuzz_cache")
    found = fuzz.fuzz(100, seed=7)
    assert (found["silent"], found["bare"], found["unrepaired"]) == ([], [], [])
    assert found["outcomes"]["said and computed anew"] > 80
