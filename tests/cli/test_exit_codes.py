"""What a line controller is told: an image that nobody could look at never passes for a good one."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import dracones
from dracones.cli.main import app
from dracones.cli.output import exit_code, unjudged
from dracones.images import Skipped


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    generator = np.random.default_rng(0)
    normal = generator.integers(100, 120, (120, 8, 8), dtype=np.uint8)
    detector = dracones.create("glow", rule="typicality", epochs=1, density={"steps": 1, "hidden": 4})
    detector.fit(normal).calibrate(generator.integers(100, 120, (60, 8, 8), dtype=np.uint8), false_alarm_rate=0.05)
    return detector.save(tmp_path_factory.mktemp("model") / "m.safetensors")


def folder(path, *, good=2, bad=0, broken=0, foreign=0):
    generator = np.random.default_rng(1)
    for i in range(good):
        Image.fromarray(np.full((8, 8), 110, np.uint8)).save(path / f"good{i}.png")
    for i in range(bad):
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(path / f"bad{i}.png")
    for i in range(broken):
        (path / f"broken{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    for i in range(foreign):
        (path / f"notes{i}.txt").write_text("not an image")
    return path


def run(model, path, *more):
    return CliRunner().invoke(app, ["score", str(model), str(path), "--fail-on-anomaly", *more])


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"good": 2}, {0, 1}),
        ({"good": 2, "foreign": 1}, {0, 1}),
        ({"good": 2, "broken": 1}, {1, 3}),
        ({"good": 0, "bad": 2}, {1}),
        ({"good": 0, "bad": 2, "broken": 1}, {1}),
    ],
)
def test_exit_codes(model, tmp_path, content, code):
    scored = dracones.load(model).predict(str(folder(tmp_path, **content)))
    expected = 1 if scored.is_anomaly.any() else 3 if content.get("broken") else 0
    assert expected in code
    assert run(model, tmp_path).exit_code == expected


def test_without_the_option_the_exit_code_is_zero(model, tmp_path):
    done = CliRunner().invoke(app, ["score", str(model), str(folder(tmp_path, broken=1))])
    assert done.exit_code == 0


def test_anomalies_win_and_other_files_do_not_count():
    unread, other = Skipped("a.png", "corrupt"), Skipped("a.txt", "no image", is_image=False)
    for skipped, expected in (([other], 0), ([other, unread], 3)):
        assert exit_code(anomalies=0, unread=len(unjudged(skipped))) == expected
    assert exit_code(anomalies=1, unread=1) == 1


def test_version():
    done = CliRunner().invoke(app, ["--version"])
    assert done.output.strip() == f"dracones {dracones.__version__}"


def test_a_limit_of_pixels_is_the_callers(model, tmp_path):
    assert run(model, folder(tmp_path), "--max-pixels", "10").exit_code != 0
    assert run(model, tmp_path, "--max-pixels", "64").exit_code in (0, 1)
    with pytest.raises(ValueError, match="--pages is first or all"):
        CliRunner().invoke(app, ["score", str(model), str(tmp_path), "--pages", "some"], catch_exceptions=False)
