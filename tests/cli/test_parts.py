"""`dracones score -o NAME.parquet/`: whole Parquet files on the way, one table at the end, taken up after a kill."""

import json
import shutil
import sys

import numpy as np
import pytest

import shard_case
from dracones.cli import main
from dracones.distributed import parts
from dracones.files.journal import Journal
from dracones.report import read_table

pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    shard_case.write_model(root)
    np.save(root / "set.npy", np.random.default_rng(0).integers(60, 120, (70, 8, 8), dtype=np.uint8))
    return root


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch):
    monkeypatch.setattr(parts, "ROWS", 16)


class Killed(BaseException):
    """As good as kill -9."""


def killed_after(monkeypatch, blocks, command):
    append, left = Journal.append, [blocks]

    def dying(self, rows):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        patch.setattr(sys, "argv", ["dracones", *map(str, command)])
        with pytest.raises(Killed):
            main()


def command_of(place, target, *more):
    return ["score", place / "model.safetensors", place / "set.npy", "--batch-size", 4, "-o", f"{target}/", *more]


def test_a_folder_is_the_table_that_a_file_is(run, place, tmp_path):
    _, err = run(*command_of(place, tmp_path / "s.parquet"))
    assert "s.parquet/ (70 scored, 0 skipped)" in err
    run("score", place / "model.safetensors", place / "set.npy", "--batch-size", 4, "-o", tmp_path / "one.parquet")
    assert sorted(path.name for path in (tmp_path / "s.parquet").iterdir()) == [
        f"part-{i:06}.parquet" for i in range(5)
    ]
    rows = list(read_table(tmp_path / "s.parquet"))
    assert rows == list(read_table(tmp_path / "one.parquet"))
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "s.parquet").to_pylist() == rows
    told = json.loads(run("monitor", tmp_path / "s.parquet", "--json")[0])
    assert told["streams"][0]["images"] == 70


def test_files_are_there_on_the_way_and_a_killed_run_goes_on(run, place, tmp_path, monkeypatch):
    run(*command_of(place, tmp_path / "whole.parquet"))
    cut, unfinished = tmp_path / "cut.parquet", tmp_path / "cut.parquet.unfinished"
    for blocks, files in ((0, 0), (5, 1), (4, 2), (1, 2)):
        killed_after(monkeypatch, blocks, command_of(place, cut, "--resume"))
        found = sorted(unfinished.glob("part-*.parquet"))
        assert len(found) == files
        assert not cut.exists()
    whole = tmp_path / "whole.parquet"
    assert all(path.read_bytes() == (whole / path.name).read_bytes() for path in found)
    (unfinished / "_rows").write_bytes((unfinished / "_rows").read_bytes()[:-5])  # torn, and a file that says more
    shutil.copy(whole / "part-000003.parquet", unfinished)
    (unfinished / "part-000001.parquet").unlink()
    run(*command_of(place, cut, "--resume"))
    assert not unfinished.exists()
    assert {path.name: path.read_bytes() for path in cut.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_a_table_that_was_there_stays_until_the_new_one_is_whole(run, place, tmp_path, monkeypatch):
    target = tmp_path / "s.parquet"
    run(*command_of(place, target))
    (target / "part-000007.parquet").write_bytes((target / "part-000000.parquet").read_bytes())  # of a longer table
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    killed_after(monkeypatch, 9, command_of(place, target))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    run("score", place / "model.safetensors", place / "set.npy", "-o", target)  # a folder already: no slash is needed
    assert len(list(target.iterdir())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]


def test_nothing_to_score_leaves_nothing(run, place, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"broken")
    _, err = run("score", place / "model.safetensors", tmp_path / "set", "-o", f"{tmp_path}/s.parquet/", code=2)
    assert "none of the 1 images" in err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_no_table_is_not_replaced(run, place, tmp_path):
    command = ["score", place / "model.safetensors", place / "set.npy", "-o"]
    (tmp_path / "file.parquet").write_bytes(b"x")
    (tmp_path / "kept.parquet").mkdir()
    (tmp_path / "kept.parquet" / "thesis.txt").write_text("x")
    for named, said in (
        ("file.parquet/", "it is a file; name a folder"),
        ("kept.parquet/", "it holds thesis.txt, which is no part of a table"),
        ("s.csv/", "-o takes one file or NAME.parquet/"),
        ("missing/s.parquet/", f"cannot write {tmp_path}/missing/s.parquet: the folder"),
    ):
        assert said in run(*command, f"{tmp_path}/{named}", code=2)[1]
