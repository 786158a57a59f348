"""An exported pair for OpenVINO scores as the detector does, without torch and onnxruntime."""

import json
import subprocess
import sys

import numpy as np
import pytest

import dracones
from dracones import runtime
from exported_line import pictures, without_torch

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def pair(padim, tmp_path_factory):
    return padim.export(tmp_path_factory.mktemp("openvino") / "line.xml", image_size=(80, 72))


def test_scores_verdicts_and_maps_are_the_detectors(padim, pair):
    images = pictures(5, 80, 72, seed=5)
    found, expected = runtime.load(pair).predict(images), padim.predict(images)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(found.is_anomaly, expected.is_anomaly)
    np.testing.assert_array_equal(found.p_values, expected.p_values)
    for one, other in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * other.max())


def test_the_verbs_take_it_where_there_is_no_torch(padim, pair, folder, tmp_path):
    without_torch("score", pair, folder, "-o", tmp_path / "line.csv")
    rows = [row.split(",") for row in (tmp_path / "line.csv").read_text().splitlines()[1:]]
    found = {row[0]: float(row[1]) for row in rows if row[1]}
    whole = padim.predict(folder)
    expected = {
        name: score for name, score in zip(whole.paths, whole.scores, strict=True) if name in ("0.png", "1.png")
    }
    assert found == pytest.approx(expected, rel=1e-5)  # the others have another size


def test_a_model_that_resizes_is_asked_for_the_images_size(padim, tmp_path):
    with pytest.raises(ValueError, match="float64"):
        padim.export(tmp_path / "line.xml")
    assert not list(tmp_path.iterdir())


def test_what_is_no_whole_pair_is_refused(pair, tmp_path):
    xml, weights = pair.read_bytes(), pair.with_suffix(".bin").read_bytes()
    edited = tmp_path / "edited.xml"
    edited.write_bytes(xml)
    with pytest.raises(FileNotFoundError, match=r"edited\.bin"):
        runtime.load(edited)
    edited.with_suffix(".bin").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(runtime.UnfitFileError, match="digest"):
        runtime.load(edited)
    edited.with_suffix(".bin").write_bytes(weights)
    runtime.load(edited)
    edited.write_bytes(xml[: len(xml) // 2])
    with pytest.raises(runtime.UnfitFileError, match="cannot be run by openvino"):
        runtime.load(edited)


def test_a_likelihood_has_its_outputs_by_name_and_its_codec(tmp_path):
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
    line = runtime.load(detector.export(tmp_path / "glow.xml", image_size=(20, 18)))
    images = pictures(9, 20, 18, seed=3)
    found, expected = line.predict(images), detector.predict(images)
    assert line.facts["host"] == ["complexity_webp"]
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(found.is_anomaly, expected.is_anomaly)
    json.dumps(line.facts)


def test_a_signal_after_models_were_let_go_ends_no_process(pair):
    """OpenVINO's plugin would leave signals a stack that is no more."""
    script = (
        "import gc, os, signal, sys\n"
        "from dracones import runtime\n"
        "held = [runtime.load(sys.argv[1]) for _ in range(2)]\n"
        "while held:\n"
        "    held.pop(0)\n"
        "    gc.collect()\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('drained'))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(pair)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "drained\n"), done.stderr
