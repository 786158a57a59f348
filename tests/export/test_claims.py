"""What is said to export has a measured file behind it, and the page says what was measured."""

import importlib
import json
from pathlib import Path

import pytest

from dracones.export.claims import MEASURED

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "benchmarks" / "export"
RECORD = json.loads((RECORDS / "race.json").read_text())
ROWS = {name: row for name, row in RECORD["rows"].items() if "refused" not in row}
BATCHES = (1, 7, 64)
FRESH = json.loads((RECORDS / "fresh.json").read_text())
STARTS = {(name, kind): row[kind] for name, row in FRESH["rows"].items() for kind in ("onnx", "xml") if kind in row}


# What docs/deployment.md names: scores that are differences of larger numbers, whose rounding stays as it is.
OVER = {"glow, auto": 2e-4, "msp": 2e-5}


@pytest.mark.parametrize("name", list(ROWS))
def test_a_file_of_the_record_is_within_the_tolerance(name):
    assert all(ROWS[name][f"difference_{count}"] <= OVER.get(name, 1e-5) for count in BATCHES)
    assert all(ROWS[name][f"verdicts_{count}"] == 1 for count in BATCHES)


def _formats(row):
    """What a row proves: `.xml` where OpenVINO ran it whole, maps and verdicts too."""
    held = "openvino_verdicts_64" in row and all(row[f"openvino_{count}"] <= 1e-5 for count in BATCHES)
    return "onnx, xml" if held and all(row[f"openvino_verdicts_{count}"] == 1 for count in BATCHES) else "onnx"


def test_every_claim_is_in_the_record():
    proven = {}
    for name, row in ROWS.items():
        proven.setdefault(name.split(",")[0], set()).add(_formats(row))
    assert {name: min(found, key=len) for name, found in proven.items()} == MEASURED


def test_the_page_holds_the_records_tables(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    page = importlib.import_module("benchmarks.export.page")
    text = page.PAGE.read_text()
    assert page.written(text, RECORD) == text
    assert page.with_precision(text, json.loads((RECORDS / "precision.json").read_text())) == text
    assert page.with_peer(text, json.loads((RECORDS / "peer.json").read_text())) == text


@pytest.mark.parametrize(("name", "kind"), list(STARTS))
def test_a_file_scored_the_same_where_there_is_no_torch(name, kind):
    row = STARTS[name, kind]
    assert row["present"] == []
    assert row["verdicts"] == 1
    assert row["difference"] <= OVER.get(name, 1e-5)
    assert kind == "xml" or name == "csflow" or row["without_network_cpu_seconds"] < 1


def test_every_file_of_the_record_was_scored_where_there_is_no_torch():
    assert {name for name, kind in STARTS if kind == "onnx"} == set(ROWS)
    assert not {each.split("==")[0] for each in FRESH["installed"]} & {"torch", "scipy", "pydantic"}


def test_our_files_say_what_the_model_says_of_photographs():
    files = json.loads((RECORDS / "peer.json").read_text())["files"]["dracones"]
    assert all(row["largest_in_spreads"] < 1e-5 and row["verdicts_changed"] == 0 for row in files.values())


def test_every_registered_method_has_a_model_to_measure(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    models = importlib.import_module("benchmarks.export.models").MODELS
    known = importlib.import_module("dracones.methods").method_names()
    assert {model.method for model in models.values()} >= set(known)
