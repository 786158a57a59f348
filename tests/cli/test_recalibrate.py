"""`dracones audit` and `dracones recalibrate` as their user runs them."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import dracones
from dracones.cli.main import app


def save(folder, count, seed):
    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(seed).integers(90, 130, (count, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("recalibrate")
    detector = dracones.create("glow", rule="typicality", epochs=1, density={"steps": 1, "hidden": 4})
    detector.fit(str(save(root / "good", 60, 0)))
    detector.calibrate(str(save(root / "more", 60, 1)), false_alarm_rate=0.05).save(root / "m.safetensors")
    save(root / "incoming", 150, 2)
    return root


def call(*arguments, code=0):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def refused(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(done.exception, ValueError | OSError), done.output
    return str(done.exception)


def test_from_the_audit_to_a_new_model(world, tmp_path):
    kept = (world / "m.safetensors").read_bytes()
    looked = json.loads(
        call("audit", world / "incoming", "--share", "0.4", "-o", tmp_path / "look.csv", "--json").stdout
    )
    assert 30 < len(looked["audit"]) < 90
    assert (tmp_path / "look.csv").read_text().split() == ["path", *looked["audit"]]
    (tmp_path / "confirmed").mkdir()
    for name in looked["audit"]:  # all of them are good; a colleague adds some that only passed
        (tmp_path / "confirmed" / f"renamed_{name}").write_bytes((world / "incoming" / name).read_bytes())
    others = [path for path in sorted((world / "incoming").iterdir()) if path.name not in looked["audit"]][:20]
    for path in others:
        (tmp_path / "confirmed" / path.name).write_bytes(path.read_bytes())
    new = tmp_path / "new.safetensors"
    asked = ["recalibrate", world / "m.safetensors", tmp_path / "confirmed", "--audit-share", "0.4", "-o", new]
    told = json.loads(call(*asked, "--json").stdout)
    assert (told["joined"], told["old_images"]) == (len(looked["audit"]), 60)
    assert told["left_out"] == {"not of the audit sample": 20}
    assert dracones.load(new).threshold == told["threshold"]
    assert (world / "m.safetensors").read_bytes() == kept
    said = call(*asked).stderr
    assert "left out: 20 not of the audit sample" in said
    assert "score above the old threshold, where" in said


def test_what_is_refused(world, tmp_path):
    model, new = world / "m.safetensors", tmp_path / "new.safetensors"
    asked = ["recalibrate", model, world / "incoming", "--audit-share", "1"]
    assert "is MODEL itself" in refused(*asked, "-o", model)
    assert "got 210 (60 old, 150 confirmed)" in refused(*asked, "-o", new, "--false-alarm-rate", "0.001")
    assert "above 0 and at most 1, got 2" in refused(
        "recalibrate", model, world / "incoming", "--audit-share", "2", "-o", new
    )
    assert call("recalibrate", model, world / "incoming", "-o", new, code=2)  # the share has to be said
    assert "above 0 and at most 1" in refused("audit", world / "incoming", "--share", "0")
    assert not new.exists()
