"""One shard in, one whole table out; the same command again does what is left."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import shard_case
from dracones.distributed.shards import ShardScorer, plan
from dracones.images import open_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    shard_case.write_model(root)
    shard_case.write_shards(root / "set")
    return root


def rows_of(folder):
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            found += list(csv.DictReader(file))
    return found


def test_each_shard_has_its_table_and_every_image_its_row(run, place, tmp_path):
    out, _ = run("score", place / "model.safetensors", place / "set", "--shards", tmp_path, "--json")
    told = json.loads(out)
    assert (told["shards"], told["scored"], told["unread"]) == (6, 59, 1)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == [f"{i}.tar.csv" for i in range(6)]
    rows = rows_of(tmp_path)
    assert [row["path"] for row in rows] == [f"{shard}-{i}.png" for shard in range(6) for i in range(10)]
    assert [row["path"] for row in rows if row["reason"]] == ["1-3.png"]
    assert told["anomalies"] == sum(row["is_anomaly"] == "true" for row in rows)


def test_a_stopped_run_goes_on_and_repeats_nothing(run, place, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ["score", place / "model.safetensors", place / "set", "--shards"]
    expected = run(*command, whole, "--json")[0]
    score, scored = ShardScorer.score, []

    def counting(self, shard):
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(shard.name)
        return score(self, shard)

    monkeypatch.setattr(ShardScorer, "score", counting)
    _, err = run(*command, cut, code=130)
    assert "the same command goes on" in err
    assert len(list(cut.glob("*.csv"))) == 3
    # A kill between a table and its line in the manifest: the shard is scored anew, into the same table.
    lines = (cut / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "manifest.jsonl").write_bytes(b"".join(lines[:-1]))
    again = []
    monkeypatch.setattr(ShardScorer, "score", lambda self, shard: again.append(shard.name) or score(self, shard))
    assert run(*command, cut, "--json")[0] == expected
    assert again == [scored[-1], "3.tar", "4.tar", "5.tar"]
    for path in whole.glob("*.csv"):
        assert (cut / path.name).read_bytes() == path.read_bytes()


def test_another_model_list_or_reading_is_refused(run, place, tmp_path):
    import dracones

    command = ["score", place / "model.safetensors", place / "set", "--shards", tmp_path / "out"]
    run(*command)
    other = tmp_path / "other.safetensors"
    dracones.load(place / "model.safetensors").calibrate(false_alarm_rate=0.4).save(other)
    assert "model was" in run("score", other, place / "set", "--shards", tmp_path / "out", code=2)[1]
    assert "max_pixels was None and is 99" in run(*command, "--max-pixels", 99, code=2)[1]
    extra = place / "set" / "9.tar"
    extra.write_bytes((place / "set" / "0.tar").read_bytes())
    try:
        assert "shards was 6 and is 7" in run(*command, code=2)[1]
    finally:
        extra.unlink()


def test_a_set_without_shards_is_cut_in_runs(run, place, tmp_path):
    np.save(tmp_path / "set.npy", np.random.default_rng(0).integers(60, 120, (25, 8, 8), dtype=np.uint8))
    command = ["score", place / "model.safetensors", tmp_path / "set.npy", "--batch-size", 4]
    run(*command, "--shards", tmp_path / "out", "--shard-size", 8, "--kind", ".jsonl")
    run(*command, "-o", tmp_path / "one.jsonl")
    parts = sorted((tmp_path / "out").glob("part-*.jsonl"))
    assert [len(part.read_text().splitlines()) for part in parts] == [8, 8, 8, 1]
    assert "".join(part.read_text() for part in parts) == (tmp_path / "one.jsonl").read_text()


def test_files_that_are_no_images_have_one_row_whatever_the_runs(run, place, tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).normal(90, 20, (8, 8)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{i}.png")
    (tmp_path / "set" / "notes.txt").write_text("no image")
    run("score", place / "model.safetensors", tmp_path / "set", "--shards", tmp_path / "out", "--shard-size", 2)
    names = [row["path"] for row in rows_of(tmp_path / "out")]
    assert sorted(names) == ["0.png", "1.png", "2.png", "3.png", "4.png", "notes.txt"]


def test_a_shard_that_cannot_be_opened_stops_no_other(run, place, tmp_path):
    shards = shard_case.write_shards(tmp_path / "set", count=3)
    (shards / "1.tar").write_bytes(b"no tar" * 100)
    _, err = run("score", place / "model.safetensors", shards, "--shards", tmp_path / "out", code=2)
    assert "1 of 3 shards could not be opened, the others are done" in err
    assert len(list((tmp_path / "out").glob("*.csv"))) == 2


def test_a_folder_of_images_is_no_folder_of_shards(tmp_path, place):
    shards = shard_case.write_shards(tmp_path / "set", count=1)
    assert [shard.name for shard in plan(str(shards), 10, open_images).shards] == ["0.tar"]
    (shards / "a.png").write_bytes(b"x")
    assert plan(str(shards), 10, open_images).shards[0].name == "part-000000"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "t.csv", "--shards", "out"], "leave out -o, --resume and maps"),
        (["--ray", "local"], "name the folder of their tables with --shards"),
        (["--shards", "out", "--kind", "csv"], "--kind is .csv, .jsonl or .parquet"),
        (["--shards", "out", "--ray", "local", "--device", "cuda"], "leave out --device"),
    ],
)
def test_options_that_do_not_go_together(run, place, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    assert said in run("score", place / "model.safetensors", place / "set", *more, code=2)[1]
