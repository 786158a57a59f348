"""`dracones report` from end to end: one file that says in words how good the model is, and loads nothing."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dracones
from dracones.cli import main
from dracones.detectors import evaluate


def parts(folder: Path, count: int, level: int, seed: int) -> str:
    folder.mkdir()
    for index, pixels in enumerate(np.random.default_rng(seed).normal(level, 10, (count, 8, 8))):
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03}.png")
    return str(folder)


def test_a_report_says_how_good_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normal, odd = parts(tmp_path / "normal", 30, 60, 1), parts(tmp_path / "odd", 10, 200, 2)
    detector = dracones.create("glow", epochs=1, rule="typicality", density={"steps": 1, "hidden": 4})
    detector.fit(parts(tmp_path / "train", 60, 60, 3))
    detector.calibrate(parts(tmp_path / "more", 40, 60, 4), false_alarm_rate=0.05)
    model = detector.save(tmp_path / "model.safetensors")
    page = tmp_path / "report.html"
    words = ["report", str(model), "--normal", normal, "--anomalous", odd, "-o", str(page)]
    monkeypatch.setattr(sys, "argv", ["dracones", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    text = page.read_text()
    found = evaluate(detector, normal, odd)
    low = found.image["auroc"]["low"]
    verdicts = (("The two sets are told apart.", 0.9, 2), ("told apart in part", 0.6, 0.9), ("not told apart", -1, 0.6))
    (expected,) = (words for words, above, up_to in verdicts if above < low <= up_to)
    assert expected in text
    false, caught = int(found.normal.is_anomaly.sum()), int(found.anomalous.is_anomaly.sum())
    assert f"false alarms, {false} of 30 normal" in text
    assert f"{caught} of 10 anomalous ones" in text
    assert text.count("<svg") + text.count("data:image/") >= 4
    assert not re.search(r"""(?:src|href)=["']https?://""", text)


def test_a_broken_promise_is_the_first_thing_the_report_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Normal images of another light raise false alarms; the two sets may be told apart all the same."""
    detector = dracones.create("glow", epochs=1, rule="typicality", density={"steps": 1, "hidden": 4})
    detector.fit(parts(tmp_path / "train", 60, 60, 3))
    detector.calibrate(parts(tmp_path / "more", 40, 60, 4), false_alarm_rate=0.05)
    model = detector.save(tmp_path / "model.safetensors")
    normal, odd = parts(tmp_path / "normal", 30, 120, 1), parts(tmp_path / "odd", 10, 250, 2)
    assert evaluate(detector, normal, odd).promise.state == "broken"
    page = tmp_path / "report.html"
    monkeypatch.setattr(
        sys, "argv", ["dracones", "report", str(model), "--normal", normal, "--anomalous", odd, "-o", str(page)]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    text = page.read_text()
    assert "The promise of 5.00% false alarms is broken" in text
    assert "Images called anomalous at the threshold" in text
