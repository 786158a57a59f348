"""The rooms import downwards only, and start-up stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_rooms_import_downwards_only():
    pytest.importorskip("importlinter")
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize("module", ["dracones", "dracones.cli", "dracones.metrics"])
def test_import_loads_no_torch(module):
    assert run_python(f"import sys, {module}; print('torch' in sys.modules)") == "False"


def test_public_names_resolve():
    import dracones

    for name in dracones.__all__:
        assert getattr(dracones, name) is not None


def test_unknown_public_name_lists_the_known():
    import dracones

    with pytest.raises(AttributeError, match="public names are"):
        dracones.no_such_name  # noqa: B018
