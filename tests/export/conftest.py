"""One small detector and its exported file, for all tests of exported files."""

import pytest
from PIL import Image

import dracones
from exported_line import pictures


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Images of two sizes and one gray, and a file that is none."""
    root = tmp_path_factory.mktemp("line")
    for i, (height, width) in enumerate([(80, 72), (80, 72), (64, 90), (40, 40)]):
        Image.fromarray(pictures(1, height, width, seed=i + 7)[0]).save(root / f"{i}.png")
    Image.fromarray(pictures(1, 50, 60, 1, seed=20)[0, :, :, 0]).save(root / "gray.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return root


@pytest.fixture(scope="session")
def padim():
    detector = dracones.create(
        "padim",
        backbone="resnet18",
        weights="random",
        size=(64, 64),
        channels=3,
        dimensions=10,
        cache=False,
        calibration_share=0.5,
        false_alarm_rate=0.1,
    )
    return detector.fit(pictures(40, 80, 72))


@pytest.fixture(scope="session")
def line(padim, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "line.onnx"
    return padim.export(path)
