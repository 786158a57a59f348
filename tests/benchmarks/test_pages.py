"""The pages of the benchmarks are what their committed results make: no figure is written by hand."""

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.parametrize(
    ("module", "record", "page"),
    [
        ("flows.race", "race.json", "race.md"),
        ("flows.depth", "depth.json", "depth.md"),
        ("flows.robustness", "robustness.json", "robustness.md"),
        ("metrics.race", "results.json", "README.md"),
        ("serving.measure", "results.json", "README.md"),
    ],
)
def test_a_page_of_one_record(module: str, record: str, page: str) -> None:
    script = importlib.import_module(f"benchmarks.{module}")
    records: Any = importlib.import_module("benchmarks.records")
    folder = ROOT / "benchmarks" / module.split(".")[0]
    assert script.page(records.read(folder / record)) == (folder / page).read_text()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("classifiers.page", "RESULTS.md"),
        ("inspection.page", "README.md"),
        ("paradox.page", "README.md"),
        ("monitoring.page", "README.md"),
        ("scale.page", "README.md"),
        ("robustness.page", "README.md"),
    ],
)
def test_a_page_of_many_records(module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = importlib.import_module(f"benchmarks.{module}")
    committed = script.HERE / name
    monkeypatch.setattr(script, "PAGE", tmp_path / name)
    script.main()
    assert (tmp_path / name).read_text() == committed.read_text()


def test_a_record_keeps_its_facts_and_takes_a_line_for_what_fits_one(tmp_path: Path) -> None:
    records = importlib.import_module("benchmarks.records")
    rows = [{"method": "msp", "auroc": {"value": 0.123456789, "low": 0.1}, "seeds": [0, 1]}] * 30
    records.write(tmp_path / "new" / "record.json", {"rows": rows, "name": "é", "none": None, "empty": {}})
    text = (tmp_path / "new" / "record.json").read_text()
    assert records.read(tmp_path / "new" / "record.json") == {
        "rows": [{**row, "auroc": {"value": 0.123457, "low": 0.1}} for row in rows],
        "name": "é",
        "none": None,
        "empty": {},
    }
    assert len(text.splitlines()) == 30 + 7


def test_results_are_written_as_records_are() -> None:
    records = importlib.import_module("benchmarks.records")
    for path in (ROOT / "benchmarks").rglob("*.json"):
        assert path.read_text() == records.text(records.read(path)) + "\n", (
            f"{path}: python -m benchmarks.records {path}"
        )


def test_provenance_names_commit_machine_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    provenance = importlib.import_module("benchmarks.provenance")
    import torch

    found = provenance.provenance(threads=2)
    assert found["threads"] == 2
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["machine"]
    monkeypatch.setenv("BENCHMARK_COMMIT", "abc")
    assert provenance.commit() == "abc"


STAMPED = sorted(
    {path.parent.relative_to(ROOT / "benchmarks").parts[0] for path in (ROOT / "benchmarks").rglob("*.json")}
)


@pytest.mark.parametrize("folder", STAMPED)
def test_every_stamp_is_a_commit_of_this_history(folder: str) -> None:
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("the history is not here: a shallow clone, or none")
    stamps = {
        stamp: str(path.relative_to(ROOT))
        for path in (ROOT / "benchmarks" / folder).rglob("*.json")
        for stamp in re.findall(r'"commit": "([^"]*)"', path.read_text())
    }
    unknown = {
        stamp: path for stamp, path in stamps.items() if git("merge-base", "--is-ancestor", stamp, "HEAD").returncode
    }
    assert stamps
    assert not unknown, "measured from a tree that is not in this history: commit first, then measure"
