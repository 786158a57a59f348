"""`dracones monitor` as its user runs it: tables, sources, state, curves, exit codes."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import dracones
from dracones.cli.main import app
from dracones.report import write_table


def row(path, score, **more):
    return {"path": path, "score": score, "p_value": None, "is_anomaly": None, "reason": None, **more}


@pytest.fixture(scope="module")
def scores():
    """Two cameras, of which the second changes after its 150th image."""
    values = np.random.default_rng(0).normal(size=500)
    values[301::2] += 1.5
    return [row(f"cam{i % 2}/{i:03}.png", float(value), line=f"L{i % 2}") for i, value in enumerate(values)]


def call(*arguments, code=0):
    done = CliRunner().invoke(app, ["monitor", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def refused(*arguments):
    done = CliRunner().invoke(app, ["monitor", *map(str, arguments)])
    assert isinstance(done.exception, ValueError | OSError), done.output
    return str(done.exception)


@pytest.mark.parametrize(("kind", "source"), [("csv", "folder"), ("jsonl", "line"), ("parquet", r"cam(\d)")])
def test_a_change_is_told_with_its_source_and_its_images(tmp_path, scores, kind, source):
    pytest.importorskip("pyarrow")
    table = write_table(tmp_path / f"s.{kind}", scores)
    whole, first, second = json.loads(call(table, "--source", source, "--json").stdout)["streams"]
    assert whole["images"] == 500
    assert (first["changed"], second["changed"]) == (False, True)
    assert first["source"][-1] + second["source"][-1] == "01"
    assert 151 <= second["alarm_at"] <= 200
    assert second["alarm_path"] == f"cam1/{2 * second['alarm_at'] - 1:03}.png"
    assert abs(second["since"] - 150) <= 15
    assert second["since_path"] == f"cam1/{2 * second['since'] + 1:03}.png"


def test_exit_codes(tmp_path, scores):
    changed = write_table(tmp_path / "changed.csv", scores)
    calm = write_table(tmp_path / "calm.csv", scores[:200])
    gap = write_table(tmp_path / "gap.csv", [*scores[:200], {**row("broken.png", None), "reason": "cut off"}])
    call(changed)
    call(changed, "--fail-on-change", "--source", "folder", code=1)
    call(calm, "--fail-on-change")
    told = call(gap, "--fail-on-change", "--source", "line", code=3)
    assert "1 image(s) have no score and were left out, such as broken.png" in told.stderr


def test_a_state_goes_on_and_takes_no_table_twice(tmp_path, scores):
    early, late = write_table(tmp_path / "a.csv", scores[:310]), write_table(tmp_path / "b.csv", scores[310:])
    state = tmp_path / "line.json"
    call(early, "--source", "folder", "--state", state)
    two = json.loads(call(late, "--source", "folder", "--state", state, "--json").stdout)["streams"]
    one = json.loads(call(early, late, "--source", "folder", "--json").stdout)["streams"]
    assert [{**r, "since_path": None} for r in two] == [{**r, "since_path": None} for r in one]
    assert two[2]["alarm_path"] == one[2]["alarm_path"]
    kept = state.read_text()
    assert "b.csv was watched before" in refused(late, "--state", state)
    assert "begun with --false-alarm-rate 0.01" in refused(late, "--state", state, "--false-alarm-rate", "0.1")
    assert state.read_text() == kept


@pytest.mark.parametrize("kind", ["png", "svg", "html"])
def test_curves(tmp_path, scores, kind):
    output = tmp_path / f"curve.{kind}"
    call(write_table(tmp_path / "s.csv", scores), "--source", "folder", "-o", output)
    if kind == "png":
        with Image.open(output) as image:
            assert image.size == (880, 600)
            assert len(image.convert("RGB").getcolors(100_000)) > 50
    else:
        text = output.read_text()
        assert "cam1" in text  # named in words, whatever is drawn
        assert ("Have the images changed?" if kind == "html" else "evidence of a change") in text
        assert ("Changed: " in text) == (kind == "html")


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([row("a", 1.0), row("a", 2.0)], [], "row 2: 'a' was there before"),
        ([row("a", 1.0), {"path": "b"}], [], "row 2: 'b' has no score, and no reason why"),
        ([row("a", "nan")], [], "row 1: score is 'nan'; expected a finite number"),
        ([row("a", "high")], [], "row 1: score is 'high'"),
        ([{"path": "a", "p_value": 1}], [], "no column 'score'; its columns are 'path', 'p_value'"),
        ([row("a", 1.0)], ["--source", "camera"], "there is no column 'camera'; columns are 'path', 'score'"),
        ([row("a", 1.0)], ["--source", "cam[0-9]"], "found in none"),
        ([row("a", 1.0, camera="x"), row("b", 1.0)], ["--source", "camera"], "row 2: the source of 'b' is not known"),
        ([row("a", 1.0)], ["-o", "curve.gif"], "a curve is written as .png, .svg, .html"),
        ([row("a", 1.0)], ["--false-alarm-rate", "2"], "strictly between 0 and 1"),
        ([], [], "has no rows"),
    ],
)
def test_what_is_refused_by_name(tmp_path, monkeypatch, rows, more, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(write_table(tmp_path / "s.csv", rows), *more)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    generator = np.random.default_rng(0)
    detector = dracones.create("glow", rule="typicality", epochs=1, density={"steps": 1, "hidden": 4})
    detector.fit(generator.integers(100, 120, (60, 8, 8), dtype=np.uint8))
    detector.calibrate(generator.integers(100, 120, (120, 8, 8), dtype=np.uint8), false_alarm_rate=0.05)
    return detector, detector.save(tmp_path_factory.mktemp("model") / "m.safetensors")


def test_with_a_model_images_are_compared_with_its_calibration(tmp_path, model, monkeypatch):
    """Images that differ from the first on: seen against the calibration, and nowhere in the table alone."""
    detector, path = model
    images = np.random.default_rng(1).integers(99, 122, (150, 8, 8), dtype=np.uint8)
    rows = [row(v.path, v.score) | {"p_value": v.p_value} for v in detector.predict(images)]
    table = write_table(tmp_path / "s.csv", rows)
    assert not json.loads(call(table, "--json").stdout)["streams"][0]["changed"]
    assert json.loads(call(table, "--model", path, "--json").stdout)["streams"][0]["changed"]
    other = write_table(tmp_path / "o.csv", [r | {"score": r["score"] + 1e3} for r in rows])
    assert "was it scored by another model?" in refused(other, "--model", path)
    state = tmp_path / "state.json"
    call(table, "--state", state)
    assert "compares with other calibration images" in refused(table, "--model", path, "--state", state)


def test_a_model_without_calibration_is_refused(tmp_path, model):
    bare = dracones.create(
        "glow", rule="typicality", epochs=1, calibration_share=0.0, density={"steps": 1, "hidden": 4}
    )
    bare.fit(np.random.default_rng(0).integers(100, 120, (30, 8, 8), dtype=np.uint8))
    path = bare.save(tmp_path / "bare.safetensors")
    table = write_table(tmp_path / "s.csv", [row("a", 1.0)])
    assert "has no calibration; `dracones calibrate" in refused(table, "--model", path)


def test_with_groups_each_is_compared_with_its_own_calibration(tmp_path, model):
    """Two groups far apart: nothing has changed until one of them does."""
    detector, _ = model
    generator = np.random.default_rng(2)

    def two_kinds(count):
        levels = [(100, 120), (60, 160)]
        return np.concatenate([generator.integers(*pair, (count, 8, 8), dtype=np.uint8) for pair in levels])

    more, new = two_kinds(60), two_kinds(40)
    grouped = dracones.Detector(detector.method)
    grouped.config = detector.config
    grouped.know(detector.fitted())
    grouped.calibrate(more, false_alarm_rate=0.05, groups=["a"] * 60 + ["b"] * 60)
    path = grouped.save(tmp_path / "grouped.safetensors")
    rows = [
        row(v.path, v.score) | {"p_value": v.p_value, "group": v.group}
        for v in grouped.predict(new, groups=["a"] * 40 + ["b"] * 40)
    ]
    table = write_table(tmp_path / "s.csv", rows)
    found = json.loads(call(table, "--model", path, "--json").stdout)["streams"]
    assert [(stream["source"], stream["images"]) for stream in found] == [("all images", 80), ("a", 40), ("b", 40)]
    assert not any(stream["changed"] for stream in found)
    swapped = [r | {"group": "b" if r["group"] == "a" else "a", "p_value": None} for r in rows]
    found = json.loads(call(write_table(tmp_path / "t.csv", swapped), "--model", path, "--json").stdout)["streams"]
    assert [stream["changed"] for stream in found] == [True, True, True]
    assert "was it scored by another model?" in refused(
        write_table(tmp_path / "u.csv", [r | {"p_value": 1.0} for r in swapped]), "--model", path
    )
    assert "there is no column 'group'" in refused(write_table(tmp_path / "v.csv", [row("a", 1.0)]), "--model", path)
