"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real data sets; the test is skipped, with the reason, where it is absent."""
    root = Path(os.environ.get("DRACONES_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"real data not found at {root}; set DRACONES_TEST_DATA to the folder that holds it")
    return root.resolve()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Torch at one thread: small tensors gain nothing from more, and parallel test workers lose."""
    import torch

    torch.set_num_threads(1)
