import builtins
import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dracones.report import write_maps, write_table
from dracones.report.maps import _inside

ROWS = [
    {"path": 'a,"b".png', "score": 0.1 + 0.2, "p_value": np.float32(0.25), "is_anomaly": True, "reason": None},
    {"path": "ü\n.png", "score": float("nan"), "p_value": None, "is_anomaly": np.bool_(False), "extra": 7},
]
COLUMNS = ["path", "score", "p_value", "is_anomaly", "reason", "extra"]


def test_csv_keeps_digits_quotes_and_gaps(tmp_path):
    with write_table(tmp_path / "t.csv", ROWS).open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == COLUMNS
    assert (first["path"], float(first["score"]), first["is_anomaly"]) == ('a,"b".png', 0.1 + 0.2, "true")
    assert (second["path"], second["score"], second["p_value"], second["extra"]) == ("ü\n.png", "", "", "7")


def test_json_lines_hold_no_nan(tmp_path):
    lines = write_table(tmp_path / "t.jsonl", iter(ROWS)).read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["score"] == 0.1 + 0.2
    assert second["score"] is None
    assert second["is_anomaly"] is False


def test_parquet_round_trip(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write_table(tmp_path / "t.parquet", ROWS)).to_pydict()
    assert list(table) == COLUMNS
    assert table["score"] == [0.1 + 0.2, None]
    assert table["is_anomaly"] == [True, False]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'dracones\[parquet\]'"):
        write_table(tmp_path / "t.parquet", ROWS)
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.csv, \.jsonl, \.parquet; got 't\.xlsx'"):
        write_table(tmp_path / "t.xlsx", ROWS)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_no_rows_make_a_readable_file(tmp_path, suffix):
    assert write_table(tmp_path / f"t.{suffix}", []).is_file()


def test_a_failure_leaves_the_old_table(tmp_path):
    path = write_table(tmp_path / "t.csv", ROWS)
    before = path.read_bytes()

    def rows():
        yield ROWS[0]
        raise KeyError("half way")

    with pytest.raises(KeyError):
        write_table(path, rows())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_maps_go_by_their_images_names_with_exact_numbers(tmp_path):
    maps = [np.random.default_rng(k).random((5 + k, 7)).astype(np.float32) for k in range(2)]
    files = write_maps(tmp_path, ["good/a.png", "bad/a.png"], maps, images=[np.zeros((3, 5, 7)), np.zeros((6, 7))])
    names = [str(file.relative_to(tmp_path)) for file in files]
    assert names == ["good/a.png.npy", "good/a.png.heat.png", "bad/a.png.npy", "bad/a.png.heat.png"]
    assert np.array_equal(np.load(files[0]), maps[0])
    assert np.array_equal(np.load(files[2]), maps[1])


def test_one_name_and_one_map_compressed_or_without_numbers(tmp_path):
    (file,) = write_maps(tmp_path, "a.png", np.eye(4), raw="npz", pictures=False)
    assert np.array_equal(np.load(file)["map"], np.eye(4))
    (file,) = write_maps(tmp_path, "b.png", np.eye(4), raw=None)
    assert file.name == "b.png.heat.png"


def test_colours_are_shared_by_all_maps_of_a_call(tmp_path):
    from PIL import Image

    cold, hot = np.zeros((4, 4)), np.zeros((4, 4))
    cold[0, 0], hot[0, 0] = 1.0, 10.0
    files = write_maps(tmp_path, ["cold.png", "hot.png"], [cold, hot], raw=None)
    first, second = (np.asarray(Image.open(file)).astype(int).sum(axis=2) for file in files)
    assert first[0, 0] < second[0, 0]
    assert first[1, 1] == second[1, 1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_counts_must_agree(tmp_path, count):
    with pytest.raises(ValueError, match=f"2 names, but {count} maps"):
        write_maps(tmp_path, ["a", "b"], [np.eye(3)] * count)
    with pytest.raises(ValueError, match=f"2 names, but {count} images"):
        write_maps(tmp_path, ["a", "b"], [np.eye(3)] * 2, images=[np.eye(3)] * count)


@given(st.text(max_size=40))
def test_no_name_leaves_the_folder(name):
    path = _inside(name)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.name
    assert all(len(part) <= 140 for part in path.parts)


def test_names_that_look_alike_once_cleaned_stay_apart():
    names = [
        "../a.png",
        "a.png",
        "a?.png",
        "a*.png",
        "x[1]",
        "x[2]",
        "/a.png",
        "..",
        "",
        "b/../a.png",
        "a.b.png",
        "a.jpg",
        "data[3]",
    ]
    assert len({_inside(name) for name in names}) == len(names)
    assert str(_inside("sub/dir/a.b.png")) == "sub/dir/a.b.png"
    assert math.isfinite(len(str(_inside("x" * 400))))


def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, monkeypatch):
    import errno
    import os

    path = write_table(tmp_path / "t.csv", ROWS)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*t\.csv .No space left on device.*untouched"):
        write_table(path, [])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_large_image_keeps_a_small_defect_visible(tmp_path):
    from PIL import Image

    heat = np.zeros((600, 1800), np.float32)
    heat[300:304, 900:904] = 1
    (path,) = write_maps(tmp_path, "a.png", heat, images=np.full((600, 1800), 0.5), low=0, high=1, raw=None)
    drawn = np.asarray(Image.open(path)).astype(int)
    assert drawn.shape[:2] == (600, 1800)
    assert np.ptp(drawn[301, 901]) > 40
    assert (np.ptp(drawn, axis=2) > 40).sum() == 16
