"""A table that is killed while it is made: taken up where it was, to the bytes of an undisturbed run."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

import dracones
from dracones.cli import main
from dracones.distributed.table import facts_of, fill
from dracones.files.journal import Journal
from dracones.images import open_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    pixels = np.random.default_rng(0).normal(90, 20, (71, 8, 8)).clip(0, 255).astype(np.uint8)
    (root / "images").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(root / "images" / f"{i}.png")
    for i in (3, 17, 18, 19, 20, 70):
        (root / "images" / f"{i}.png").write_bytes(b"broken")
    (root / "images" / "notes.txt").write_text("no image")
    detector = dracones.create("glow", epochs=1, rule="typicality", density={"steps": 1, "hidden": 4})
    detector.fit(pixels, device="cpu").calibrate(false_alarm_rate=0.3)
    detector.save(root / "model.safetensors")
    return root


def test_where_nothing_can_be_read_every_reason_is_said_and_nothing_is_left(run, place, tmp_path):
    for name, content in (("a.png", b"broken"), ("b.png", b""), ("c.png", b"broken")):
        (tmp_path / name).write_bytes(content)
    _, err = run("score", place / "model.safetensors", tmp_path, "-o", tmp_path / "s.csv", code=2)
    assert "none of the 3 images of" in err
    assert "a.png: " in err
    assert "; b.png: the file is empty" in err
    assert "c.png" not in err
    assert not list(tmp_path.glob("s.csv*"))


class Killed(BaseException):
    """As good as kill -9: nothing that runs after it may matter."""


@pytest.fixture
def killed_after(monkeypatch):
    def arm(blocks):
        append, left = Journal.append, [blocks]

        def dying(self, rows):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            append(self, rows)

        monkeypatch.setattr(Journal, "append", dying)
        return lambda: monkeypatch.setattr(Journal, "append", append)

    return arm


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_a_killed_table_ends_as_if_nothing_had_happened(run, place, tmp_path, killed_after, monkeypatch, kind):
    whole, cut = tmp_path / f"whole{kind}", tmp_path / f"cut{kind}"
    command = ["score", place / "model.safetensors", place / "images", "--batch-size", 4, "-o"]
    out, err = run(*command, whole)
    for blocks in (0, 2, 5, 1, 3):
        alive = killed_after(blocks)
        monkeypatch.setattr(sys, "argv", ["dracones", *map(str, [*command, cut, "--resume"])])
        with pytest.raises(Killed):
            main()
        alive()
        assert not cut.exists()
    journal = cut.with_name(cut.name + ".unfinished")
    journal.write_bytes(journal.read_bytes()[:-5])  # torn in a line
    out_again, err_again = run(*command, cut, "--resume")
    assert cut.read_bytes() == whole.read_bytes()
    assert (out_again, err_again.replace(str(cut), str(whole))) == (out, err)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([whole.name, cut.name])


def test_a_block_that_was_cut_off_begins_anew(place, tmp_path, monkeypatch):
    detector = dracones.load(place / "model.safetensors")
    images = detector.adopt(open_images(str(place / "images")))
    path, facts = tmp_path / "rows", facts_of(place / "model.safetensors", images)
    with Journal.begin(path, facts) as journal:
        fill(detector, images, journal, batch_size=16)
        whole = list(journal.rows())
        journal.keep(40)
    starts, stream = [], detector.stream
    monkeypatch.setattr(
        detector, "stream", lambda *a, **options: starts.append(options["start"]) or stream(*a, **options)
    )
    with Journal.resume(path, facts) as journal:
        fill(detector, images, journal, batch_size=16)
        assert list(journal.rows()) == whole
    assert starts == [32], "two whole blocks of 16 stand; the third is scored as a whole"


def test_every_image_has_one_row_and_other_files_come_last(run, place, tmp_path):
    run("score", place / "model.safetensors", place / "images", "-o", tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["path"] for row in rows] == [*(f"{i}.png" for i in range(71)), "notes.txt"]
    assert [i for i, row in enumerate(rows) if row["reason"]] == [3, 17, 18, 19, 20, 70, 71]


def test_json_is_whole_after_a_resume(run, place, tmp_path, killed_after, monkeypatch):
    command = ["score", place / "model.safetensors", place / "images", "--batch-size", 4, "--json", "-o"]
    expected, _ = run(*command, tmp_path / "a.csv")
    alive = killed_after(3)
    monkeypatch.setattr(sys, "argv", ["dracones", *map(str, [*command, tmp_path / "b.csv"])])
    with pytest.raises(Killed):
        main()
    alive()
    found, _ = run(*command, tmp_path / "b.csv", "--resume")
    told = json.loads(found)
    assert told == json.loads(expected)
    assert len(told["skipped"]) == 7


def test_a_resume_with_another_model_or_list_is_refused(run, place, tmp_path, killed_after, monkeypatch):
    command = ["score", place / "model.safetensors", place / "images", "-o", tmp_path / "t.csv"]
    alive = killed_after(1)
    monkeypatch.setattr(sys, "argv", ["dracones", *map(str, command)])
    with pytest.raises(Killed):
        main()
    alive()
    other = tmp_path / "other.safetensors"
    dracones.load(place / "model.safetensors").calibrate(false_alarm_rate=0.4).save(other)
    _, err = run("score", other, place / "images", "-o", tmp_path / "t.csv", "--resume", code=2)
    assert "rows of another run: model was" in err
    (place / "images" / "71.png").write_bytes((place / "images" / "0.png").read_bytes())
    try:
        _, err = run(*command, "--resume", code=2)
    finally:
        (place / "images" / "71.png").unlink()
    assert "count was 71 and is 72" in err
    _, err = run(*command)
    assert "holds the rows of a killed run; they are scored anew" in err


def test_resume_needs_a_table_and_draws_no_maps(run, place, tmp_path):
    _, err = run("score", place / "model.safetensors", place / "images", "--resume", code=2)
    assert "name it with --output" in err
    _, err = run(
        "score", place / "model.safetensors", "x", "-o", tmp_path / "t.csv", "--maps", tmp_path, "--resume", code=2
    )
    assert "--maps, --masks and --regions are of all images in one run" in err


def test_ctrl_c_says_what_is_kept(run, place, tmp_path, monkeypatch):
    append = Journal.append

    def interrupted(self, rows):
        append(self, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    command = ["score", place / "model.safetensors", place / "images", "--batch-size", 4]
    _, err = run(*command, "-o", tmp_path / "t.csv", code=130)
    assert f"4 rows are kept in {tmp_path / 't.csv.unfinished'}, --resume goes on" in err
    _, err = run(*command, "--json", code=130)
    assert err.strip().endswith("stopped")


def test_a_full_disk_keeps_the_last_good_table(run, place, tmp_path, monkeypatch):
    table = tmp_path / "t.csv"
    command = ["score", place / "model.safetensors", place / "images", "-o", table]
    run(*command)
    good = table.read_bytes()
    import dracones.report.tables

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dracones.report.tables, "_write_csv", full)
        _, err = run(*command, code=2)
    assert "No space left on device" in err
    assert "all rows are whole in" in err
    assert table.read_bytes() == good
    run(*command, "--resume")
    assert table.read_bytes() == good
