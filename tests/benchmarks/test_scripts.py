"""Every script that measures still imports and tells its options: what it calls in the library is where it looks."""

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {"classifiers.page", "inspection.page", "paradox.page", "monitoring.page"}  # take no options: see test_pages
# Take fixed arguments from a race.
CHILDREN = {"inspection.ours", "metrics.entrants", "flows.contestants", "export.first_verdict", "export.peer_side"}
FOLDERS = (
    "classifiers",
    "flows",
    "inspection",
    "metrics",
    "paradox",
    "training",
    "mutation",
    "export",
    "monitoring",
    "serving",
)
MODULES = sorted(
    f"{path.parent.name}.{path.stem}" for name in FOLDERS for path in (ROOT / "benchmarks" / name).glob("*.py")
)


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("DRACONES_TEST_DATA", str(tmp_path))


@pytest.mark.parametrize("name", MODULES)
def test_a_script_imports_and_tells_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    if not hasattr(module, "main") or name in PAGES | CHILDREN:
        return
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "inspection" / "peer").glob("*.py")), ids=lambda p: p.name
)
def test_a_peers_script_compiles(path: Path) -> None:
    compile(path.read_text(), str(path), "exec")


def test_every_way_to_run_a_script_that_is_written_down_exists() -> None:
    for path in [
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
    ]:
        for named in re.findall(r"python -m (benchmarks\.[a-z_.]+[a-z])", path.read_text()):
            assert (ROOT / f"{named.replace('.', '/')}.py").exists(), f"{path} names {named}"
