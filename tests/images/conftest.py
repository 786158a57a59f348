"""Folders of small image files, made on the fly."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def pixels():
    """`pixels(seed, height, width, channels)`: uint8 noise."""

    def make(seed: int = 0, height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)
        return noise[:, :, 0] if channels == 1 else noise

    return make


@pytest.fixture
def folder(tmp_path, pixels):
    """Twelve good images of 8x8 in natural order, and one of every kind of bad file."""
    root = tmp_path / "parts"
    for i in range(12):
        save(root / f"part{i}.png", pixels(i))
    (root / "part3b.png").write_bytes((root / "part3.png").read_bytes()[:100])
    (root / "part4b.jpg").write_bytes(b"")
    (root / "part5b.png").write_text("a text that was renamed")
    (root / "notes.txt").write_text("keep dry")
    (root / "README").write_text("no suffix")
    (root / "Thumbs.db").write_bytes(b"junk")
    (root / ".DS_Store").write_bytes(b"junk")
    (root / ".hidden").mkdir()
    save(root / ".hidden" / "no.png", pixels(99))
    return root


@pytest.fixture
def mvtec(tmp_path, pixels):
    """A category in MVTec-AD's layout: 4 for training, 2 good and 2 + 1 defective for testing."""
    root = tmp_path / "bottle"
    for i in range(4):
        save(root / "train" / "good" / f"{i:03}.png", pixels(i))
    for i in range(2):
        save(root / "test" / "good" / f"{i:03}.png", pixels(10 + i))
    for kind, count in (("scratch", 2), ("dent", 1)):
        for i in range(count):
            save(root / "test" / kind / f"{i:03}.png", pixels(20 + i))
            mask = np.zeros((8, 8), np.uint8)
            mask[i : i + 3, 2:5] = 255
            save(root / "ground_truth" / kind / f"{i:03}_mask.png", mask)
    return root
