"""An exported file scores as its detector does, and says when it must not."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import dracones
from dracones import runtime
from dracones.export import export, refusal
from dracones.runtime.container import CHECKS, DIGEST, FACTS, PLACEHOLDER, TREATMENT
from exported_line import pictures, running, without_torch

pytest.importorskip("onnxruntime")


def test_scores_verdicts_and_maps_are_the_detectors(padim, line, folder):
    found, expected = runtime.load(line).predict(folder, batch_size=3), padim.predict(folder)
    assert found.paths == expected.paths
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(found.p_values, expected.p_values)
    np.testing.assert_array_equal(found.is_anomaly, expected.is_anomaly)
    for map_found, map_expected in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_allclose(map_found, map_expected, atol=1e-5 * map_expected.max())
    assert [item.name for item in found.errors] == ["broken.png"]
    assert (found.threshold, found.false_alarm_rate) == (expected.threshold, expected.false_alarm_rate)


def test_the_command_line_scores_it_where_there_is_no_torch(padim, line, folder, tmp_path):
    without_torch("score", line, folder, "-o", tmp_path / "line.csv", "--maps", tmp_path / "maps")
    padim.save(tmp_path / "model.safetensors")
    whole = ["score", str(tmp_path / "model.safetensors"), str(folder), "-o", str(tmp_path / "whole.csv")]
    subprocess.run(
        [sys.executable, "-c", "from dracones.cli import main\nmain()\n", *whole],
        check=True,
        capture_output=True,
        timeout=120,
    )
    rows = [
        [row.split(",") for row in (tmp_path / name).read_text().splitlines()] for name in ("line.csv", "whole.csv")
    ]
    assert rows[0][0] == rows[1][0]
    assert len(rows[0]) == len(rows[1]) == 7
    for found, expected in zip(rows[0][1:], rows[1][1:], strict=True):
        assert found[:1] + found[2:4] == expected[:1] + expected[2:4]
        if expected[1]:
            assert float(found[1]) == pytest.approx(float(expected[1]), rel=1e-5)
    assert len(list((tmp_path / "maps").rglob("*.npy"))) == 5


SCORES = """
from dracones import runtime
print(runtime.load(sys.argv[1]).predict(sys.argv[2]).scores.tolist())
"""


def test_the_runtime_needs_numpy_pillow_and_onnxruntime_alone(padim, line, folder):
    others = ("torch", "torchvision", "timm", "scipy", "sklearn", "skimage", "pydantic", "matplotlib", "typer", "rich")
    found = json.loads(running(SCORES, line, folder, blocked=others))
    np.testing.assert_allclose(found, padim.predict(folder).scores, rtol=1e-5)


def _edited(line, tmp_path, change, *, resealed=True):
    model = onnx.load(str(line))
    metadata = {each.key: each.value for each in model.metadata_props}
    change(metadata)
    metadata[DIGEST] = PLACEHOLDER
    onnx.helper.set_model_props(model, metadata)
    data = model.SerializeToString()
    path = tmp_path / "edited.onnx"
    path.write_bytes(runtime.seal(data) if resealed else data)
    return path


def test_what_is_no_whole_file_of_ours_is_refused(line, tmp_path):
    data = line.read_bytes()
    cut, flipped, foreign = (tmp_path / f"{name}.onnx" for name in ("cut", "flipped", "foreign"))
    cut.write_bytes(data[: len(data) // 2])
    place = len(data) // 2
    flipped.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    model = onnx.load(str(line))
    del model.metadata_props[:]
    onnx.save(model, str(foreign))
    with pytest.raises(runtime.UnfitFileError, match="cannot be run"):
        runtime.load(cut)
    with pytest.raises(runtime.UnfitFileError, match="digest"):
        runtime.load(flipped)
    with pytest.raises(runtime.UnfitFileError, match="no description"):
        runtime.load(foreign)
    with pytest.raises(FileNotFoundError, match="no such file"):
        runtime.load(tmp_path / "none.onnx")


def test_a_newer_format_and_a_failed_check_are_refused(line, tmp_path):
    def newer(metadata):
        metadata[FACTS] = metadata[FACTS].replace('"format": 1', '"format": 2')

    def other_answers(metadata):
        checks = runtime.container.Checks.from_text(metadata[CHECKS])
        outputs = {**checks.outputs, "score": checks.outputs["score"] * 1.001}
        metadata[CHECKS] = runtime.container.Checks(checks.images, outputs, checks.stride).to_text()

    with pytest.raises(runtime.UnfitFileError, match="format 2"):
        runtime.load(_edited(line, tmp_path, newer))
    with pytest.raises(runtime.UnfitFileError, match="fails its own check: the score of image"):
        runtime.load(_edited(line, tmp_path, other_answers))
    with pytest.raises(runtime.UnfitFileError, match="digest"):
        runtime.load(_edited(line, tmp_path, lambda metadata: None, resealed=False))


def test_images_that_the_graph_does_not_take_are_reported(line, tmp_path):
    Image.fromarray(pictures(1, 30, 30)[0]).save(tmp_path / "good.png")
    Image.fromarray((np.arange(900).reshape(30, 30) * 60).astype(np.uint16)).save(tmp_path / "deep.png")
    found = runtime.load(line).predict(tmp_path)
    assert list(found.paths) == ["good.png"]
    assert "8-bit" in found.errors[0].reason


def test_nothing_is_written_where_the_file_would_not_score_the_same(padim, tmp_path, monkeypatch):
    from dracones.export import exporting

    kept = exporting.expected
    monkeypatch.setattr(exporting, "expected", lambda *a: {**kept(*a), "score": kept(*a)["score"] * 1.1})
    with pytest.raises(runtime.UnfitFileError, match="score"):
        export(padim, tmp_path / "line.onnx")
    assert not list(tmp_path.iterdir())


def test_a_codecs_sizes_are_computed_by_the_runner(tmp_path):
    detector = dracones.create(
        "glow",
        rule="complexity",
        density={"levels": 1, "steps": 1, "hidden": 4},
        size=(8, 8),
        channels=1,
        training={"epochs": 1},
        calibration_share=0.5,
        false_alarm_rate=0.1,
    )
    detector.fit(pictures(40, 20, 18))
    path = detector.export(tmp_path / "glow.onnx")
    assert TREATMENT in {each.key for each in onnx.load(str(path)).metadata_props}
    loaded = runtime.load(path)
    assert loaded.facts["host"] == ["complexity_webp"]
    images = pictures(9, 20, 18, seed=3)
    found, expected = loaded.predict(images), detector.predict(images)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(found.is_anomaly, expected.is_anomaly)


def test_auto_brings_its_layout_and_an_embedding_along(tmp_path):
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(resnet18().state_dict(), tmp_path / "weights.safetensors")
    detector = dracones.create(
        "glow",
        density={"levels": 1, "steps": 1, "hidden": 4},
        size=(8, 8),
        channels=3,
        training={"epochs": 1},
        validation_share=0.5,
        backbone="resnet18",
        weights=str(tmp_path / "weights.safetensors"),
    )
    detector.fit(pictures(120, 20, 18))
    path = detector.export(tmp_path / "glow.onnx")
    images = pictures(9, 20, 18, seed=3)
    found, expected = runtime.load(path).predict(images), detector.predict(images)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3)


def test_without_calibration_scores_alone_are_exported(padim, tmp_path):
    bare = padim.tiled((64, 64))
    bare.config = padim.config
    bare.know(padim.fitted().uncalibrated())
    made = export(bare, tmp_path / "bare.onnx")
    padim.know(padim.fitted())
    assert not made.calibrated
    found = runtime.load(made.path).predict(pictures(2, 80, 72))
    assert found.p_values is None
    assert found.is_anomaly is None


def test_torchs_own_format_gives_the_same(padim, tmp_path):
    path = padim.export(tmp_path / "line.pt2")
    graph = torch.export.load(path).module()
    images = torch.from_numpy(pictures(5, 90, 70).transpose(0, 3, 1, 2).copy())
    score = graph(images)[0]
    expected = padim.predict(images, maps=False).scores
    np.testing.assert_allclose(score.detach().numpy(), expected, rtol=1e-5)


def test_what_cannot_be_exported_is_refused_by_name(padim, tmp_path):
    assert "tiles" in (refusal(padim.tiled((64, 64))) or "")
    with pytest.raises(ValueError, match=r"\.onnx"):
        export(padim, tmp_path / "line.tflite")
    with pytest.raises(ValueError, match="not fitted"):
        dracones.create("padim").export(tmp_path / "line.onnx")
