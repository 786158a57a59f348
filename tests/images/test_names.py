"""Names that are no text: every listed file comes out under a name that any stream takes and that leads back to it."""

import csv
import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dracones.images import UnreadableImage, open_images
from dracones.images.names import original, plain_text, shown
from dracones.report import write_table

posix = pytest.mark.skipif(sys.platform == "win32", reason="names are bytes on POSIX alone")


@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_are_shown_as_text_and_found_again(data):
    name = os.fsdecode(data)
    text = shown(name)
    assert text.isprintable()
    text.encode("utf-8")
    assert original(text) == name


@given(st.text(max_size=40))
def test_any_text_goes_there_and_back(name):
    if not any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        assert original(shown(name)) == name


@posix
def test_every_file_of_a_folder_is_in_the_table_whatever_it_is_called(tmp_path):
    names = [b"caf\xe9.png", b"\x1b[31mred.png", b"=1+1.png", b"-x.png", b"line\nbreak.png", "größe.png".encode()]
    for name in names:
        Image.new("L", (4, 4)).save(tmp_path / "plain.png")
        os.rename(os.fsencode(tmp_path / "plain.png"), os.fsencode(tmp_path) + b"/" + name)  # noqa: PTH104
    images = open_images(tmp_path)
    assert len(images) == len(names)
    assert {os.fsencode(original(name)) for name in images.names} == set(names)
    assert images.read(0).shape == (1, 4, 4)
    for kind in ("csv", "jsonl"):
        path = write_table(tmp_path / f"scores.{kind}", [{"path": name, "score": 1.0} for name in images.names])
        text = path.read_text(encoding="utf-8")
        assert "\x1b" not in text
        rows = list(csv.DictReader(text.splitlines())) if kind == "csv" else list(map(json.loads, text.splitlines()))
        assert [row["path"].removeprefix("'") for row in rows] == images.names


def test_no_cell_is_run_by_a_spreadsheet(tmp_path):
    cells = ["=1+1", "+1", "-1", "@a", "\tx", "\rx", "plain"]
    path = write_table(tmp_path / "t.csv", [{"path": cell, "score": -1.5} for cell in cells])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["'=1+1", "'+1", "'-1", "'@a", "'\tx", "'\\x0dx", "plain"]
    assert {row["score"] for row in rows} == {"-1.5"}


def test_a_reason_is_one_short_printable_line():
    error = UnreadableImage("a.tif", "bad\x1b[2J\n" + "tag " * 5000)
    assert len(str(error)) < 400
    assert str(error).isprintable()
    assert plain_text("as it is") == "as it is"
