"""Killed at any byte, before any synchronisation or rename, or met by a full disk: the last good files stay whole."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from writers import KILLED, WRITERS, run

SIGXFSZ = -25
SINGLE = ("save", "checkpoint", "text", "table")


def files(folder):
    """Every file that a user sees, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def made(folder, name, *contents):
    """A folder in which a writer wrote, and how many synchronisations and renames the last run made."""
    folder.mkdir()
    said = ""
    for content in contents:
        code, said = run(name, folder, content)
        assert code == 0, said
    return said


def age(folder):
    """What a killed process left, as it is after the hour in which another might still be writing it."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_was_ended_anywhere_leaves_whole_files_and_can_be_done_again(name, tmp_path):
    (tmp_path / "here").mkdir()
    WRITERS[name](tmp_path / "here", 0)  # what libraries load and keep for themselves is behind us then
    made(tmp_path / "old", name, 1)
    fsyncs, renames = map(int, made(tmp_path / "new", name, 1, 2).split())
    before, after = files(tmp_path / "old"), files(tmp_path / "new")
    assert fsyncs >= 1
    assert renames >= 1
    largest = max(len(data) for data in after.values())
    points = [("bytes", 10), ("bytes", largest // 2), ("bytes", largest - 1), ("full", 10), ("full", largest - 1)]
    points += [(kind, i + 1) for kind, count in (("fsync", fsyncs), ("rename", renames)) for i in range(count)]
    for kind, at in points:
        folder = tmp_path / f"{kind}{at}"
        shutil.copytree(tmp_path / "old", folder)
        code, said = run(name, folder, 2, kind, at)
        where = f"{name}, {kind} {at}: {code} {said}"
        if kind == "full":
            # A cache that finds no room goes on without.
            assert code == (0 if name == "cache" else 1), where
            assert name == "cache" or said.startswith("OSError: could not write"), where
        else:
            assert code == (SIGXFSZ if kind == "bytes" else KILLED), where
        left = files(folder)
        assert before.keys() <= left.keys(), where
        assert all(data in (before.get(path), after.get(path)) for path, data in left.items()), where
        age(folder)
        again, why = run(name, folder, 2)
        assert again == 0, why
        assert files(folder) == after, where
        assert everything(folder) == everything(tmp_path / "new"), where


@pytest.mark.parametrize("name", SINGLE)
def test_bytes_are_on_the_disk_before_the_name_is(name, tmp_path, monkeypatch):
    """A power cut after the rename must not find an empty file under the good name."""
    events, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(descriptor):
        state = os.fstat(descriptor)
        events.append(("fsync", state.st_ino, state.st_size))
        fsync(descriptor)

    def noted_replace(source, target):
        state = Path(source).stat()
        events.append(("rename", state.st_ino, state.st_size))
        replace(source, target)
        events.append(("renamed", Path(target).parent.stat().st_ino, 0))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    WRITERS[name](tmp_path, 1)
    renames = [i for i, event in enumerate(events) if event[0] == "rename"]
    assert renames
    for i in renames:
        _, inode, size = events[i]
        assert ("fsync", inode, size) in events[:i], "the file was renamed before its bytes were on the disk"
        folder = events[i + 1][1]
        assert any(event[:2] == ("fsync", folder) for event in events[i:]), "the folder was not synchronised"
