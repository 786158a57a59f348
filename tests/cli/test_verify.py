"""`dracones verify`: a whole file, a damaged one, one of another kind; exit codes and JSON."""

import json

import pytest
import torch

import dracones
from dracones.cli.main import main
from feature_case import SMALL, normals


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    detector = dracones.create("patchcore", memory_share=0.02, false_alarm_rate=0.2, **SMALL).fit(normals(60))
    return detector.save(tmp_path_factory.mktemp("verify") / "model.safetensors")


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["dracones", "verify", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_a_whole_file_passes_every_check(model, monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, model, "--json")
    told = json.loads(out)
    assert code == 0
    assert [check["name"] for check in told["checks"]] == ["format", "digest", "header", "method", "calibration"]
    assert told["passed"]
    assert told["digest"] == dracones.load(model).provenance["digest"]
    code, _, err = run(monkeypatch, capsys, model)
    assert code == 0
    assert "patchcore for images of 3x64x64" in err
    assert "at most 20.00% false alarms" in err
    assert "model.safetensors: whole" in err


def test_damage_is_exit_code_2_and_says_where(model, tmp_path, monkeypatch, capsys):
    data = bytearray(model.read_bytes())
    data[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    code, out, _ = run(monkeypatch, capsys, tmp_path / "damaged.safetensors", "--json")
    told = json.loads(out)
    assert code == 2
    assert [check["passed"] for check in told["checks"]] == [True, False]
    assert "damaged.safetensors was altered" in told["checks"][-1]["detail"]
    (tmp_path / "other.txt").write_text("no model")
    code, _, err = run(monkeypatch, capsys, tmp_path / "other.txt")
    assert code == 2
    assert "FAILED  format" in err
    code, _, err = run(monkeypatch, capsys, tmp_path / "absent")
    assert code == 2
    assert "no model file" in err


def test_a_guard_is_compared_where_its_classifier_is_given(tiny, tmp_path, monkeypatch):
    guard = dracones.create("knn", classifier=tiny.TinyNet(), false_alarm_rate=0.2)
    path = guard.fit(tiny.images(60), labels=torch.arange(60) % 4).save(tmp_path / "guard.safetensors")
    alone, beside = dracones.detectors.verify(path), dracones.detectors.verify(path, classifier=tiny.TinyNet())
    assert alone.passed
    assert "was not given" in alone.checks[3].detail
    assert beside.passed
    assert "as this version builds it" in beside.checks[3].detail
