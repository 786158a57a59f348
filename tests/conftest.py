"""Fixtures that every room's tests share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

# Before torch is loaded: some tests fork, and a fork of a process whose OpenMP has started threads may wait for ever.
for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_pool] = "1"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real data sets; the test is skipped, with the reason, where it is absent."""
    root = Path(os.environ.get("DRACONES_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"real data not found at {root}; set DRACONES_TEST_DATA to the folder that holds it")
    return root.resolve()


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """A tiny classifier whose weights are a formula, and its images, for one and three channels."""
    import tiny_classifier

    return tiny_classifier


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs a verb in this process: what it wrote to standard output and to standard error, once its code is checked."""

    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        from dracones.cli import main

        monkeypatch.setattr(sys, "argv", ["dracones", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, err
        return out, err

    return call


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a module's fixture draws is the same whichever test comes first."""
    _seed()


def _seed() -> None:
    import numpy as np
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.fixture(autouse=True)
def _torch_as_found() -> Iterator[None]:
    """One thread, as small tensors gain nothing from more; and no test may leave gradients off for the next.

    What is drawn without a seed is the same in whatever order and company a test runs.
    """
    import torch

    torch.set_num_threads(1)
    _seed()
    yield
    left_on, _ = torch.is_grad_enabled(), torch.set_grad_enabled(True)
    assert left_on, "gradients were left switched off"
