"""`--group` as its user gives it: at the calibration, at scoring, at the evaluation."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dracones.cli.main import app

SIDES = {"calm": (100, 115), "rich": (90, 130)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("group")
    for seed, (part, count) in enumerate({"good": 30, "more": 40, "new": 25, "odd": 4}.items()):
        for name, levels in SIDES.items():
            (root / part / name).mkdir(parents=True)
            random = np.random.default_rng([seed, *levels])
            low, high = (0, 255) if part == "odd" else levels
            for i in range(count):
                pixels = random.integers(low, high, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i:02}.png")
    rows = [f"{name}/{i:02}.png,{name[0].upper()}" for name in SIDES for i in range(40)]
    (root / "lines.csv").write_text("\n".join(["path,line", *rows]))
    tiny = ["--set", "epochs=1", "--set", "density.steps=1", "--set", "density.hidden=4", "--set", "rule=typicality"]
    fitted = ["fit", "glow", root / "good", "-o", root / "m.safetensors", *tiny, "--false-alarm-rate", "0.05"]
    call(*fitted, "--calibrate", root / "more", "--group", "folder")
    return root


def call(*arguments, code=0):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, (done.output, done.exception)
    return done


def refused(*arguments):
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(done.exception, ValueError), done.output
    return str(done.exception)


def test_the_table_of_scores_names_the_groups(world, tmp_path):
    told = call("score", world / "m.safetensors", world / "new", "-o", tmp_path / "s.csv")
    assert "above the thresholds of their groups (promised false-alarm rate 5.00% in each)" in told.stderr
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == [row["path"].split("/")[0] for row in rows]
    listed = json.loads(call("score", world / "m.safetensors", world / "new", "--json").stdout)["images"]
    assert [row["group"] for row in listed] == [row["group"] for row in rows]
    call("score", world / "m.safetensors", world / "odd", "--fail-on-anomaly", code=1)


def test_without_groups_the_column_is_empty(world, tmp_path):
    call("calibrate", world / "m.safetensors", world / "more", "-o", tmp_path / "plain.safetensors")
    call("score", tmp_path / "plain.safetensors", world / "new", "-o", tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        assert {row["group"] for row in csv.DictReader(file)} == {""}


def test_shards_have_groups_too(world, tmp_path):
    call("score", world / "m.safetensors", world / "new", "--shards", tmp_path / "out", "--shard-size", "20")
    rows = [row for table in sorted((tmp_path / "out").glob("*.csv")) for row in csv.DictReader(table.open(newline=""))]
    assert len(rows) == 50
    whole = json.loads(call("score", world / "m.safetensors", world / "new", "--json").stdout)["images"]
    assert [(row["path"], row["group"], float(row["p_value"])) for row in rows] == [
        (row["path"], row["group"], row["p_value"]) for row in whole
    ]
    out = ["--shards", tmp_path / "other", "--group", "folder"]
    assert "leave out --group" in refused("score", world / "m.safetensors", world / "new", *out)


def test_evaluate_tells_the_false_alarms_of_each_group(world):
    sides = ["--normal", world / "new", "--anomalous", world / "odd"]
    told = json.loads(call("evaluate", world / "m.safetensors", *sides, "--json").stdout)
    assert told["promise"] is None
    assert {name: each["images"] for name, each in told["groups"].items()} == {"calm": 25, "rich": 25}
    assert sum(each["alarms"] for each in told["groups"].values()) == told["alarms"]["normal"]["count"]
    assert all(each["rate"] == 0.05 for each in told["groups"].values())
    shown = call("evaluate", world / "m.safetensors", *sides).stdout
    assert "false alarms of each group, of which 5.00% are promised" in shown


def test_groups_from_a_column_of_a_table(world, tmp_path):
    model, column = tmp_path / "m.safetensors", f"{world / 'lines.csv'}:line"
    told = call("calibrate", world / "m.safetensors", world / "more", "--group", column, "-o", model, "--json")
    assert sorted(json.loads(told.stdout)["groups"]) == ["C", "R"]
    assert "were given by a table or a list" in refused("score", model, world / "new")
    rows = json.loads(call("score", model, world / "new", "--group", column, "--json").stdout)["images"]
    assert {row["group"] for row in rows} == {"C", "R"}
    assert "has no column 'camera'" in refused(
        "score", model, world / "new", "--group", f"{world / 'lines.csv'}:camera"
    )
    twice = tmp_path / "twice.csv"
    twice.write_text("path,line\na,1\na,2\n")
    assert "row 2: 'a' was there before" in refused("score", model, world / "new", "--group", f"{twice}:line")


def test_what_has_no_promise_is_refused(world, tmp_path):
    model = world / "m.safetensors"
    assert "of groups that were not calibrated" in refused("score", model, world / "new" / "calm")
    asked = ["--group", "folder", "--false-alarm-rate", "0.02", "-o", tmp_path / "x"]
    assert "in the smallest of the groups" in refused("calibrate", model, world / "more", *asked)
    assert not (tmp_path / "x").exists()


def test_a_report_of_groups_is_written(world, tmp_path):
    sides = ["--normal", world / "new", "--anomalous", world / "odd"]
    call("report", world / "m.safetensors", *sides, "-o", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "calm: The promise of 5.00% false alarms" in text
    assert "rich: The promise of 5.00% false alarms" in text
