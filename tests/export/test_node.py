"""The example for node reads an exported file's description and gives the same score."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dracones

pytest.importorskip("onnxruntime")
SCRIPT = Path(__file__).parents[2] / "examples" / "onnxruntime_web" / "score.mjs"


@pytest.fixture
def node(tmp_path):
    """The script beside the packages that it imports."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    packages = Path(os.environ.get("NODE_PATH", "node_modules")).resolve()
    if not (packages / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not installed: npm install onnxruntime-web, and NODE_PATH to node_modules")
    (tmp_path / "node_modules").symlink_to(packages)
    return Path(shutil.copy(SCRIPT, tmp_path))


def test_node_gives_the_same_score(node, tmp_path):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (30, 40, 44, 3), dtype=np.uint8)
    detector = dracones.create(
        "padim", backbone="resnet18", weights="random", size=(32, 32), dimensions=8, cache=False, false_alarm_rate=0.5
    ).fit(images)
    path = detector.export(tmp_path / "line.onnx")
    (tmp_path / "image.rgb").write_bytes(images[3].tobytes())
    command = ["node", node, path, tmp_path / "image.rgb", "40", "44"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=tmp_path).stdout)
    expected = detector.predict(images[3:4])
    assert answer["method"] == "padim"
    assert answer["score"] == pytest.approx(float(expected.scores[0]), rel=1e-5)
