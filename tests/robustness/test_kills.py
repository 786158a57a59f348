"""Killed at any byte, before any synchronisation or rename, or met by a full disk: the last good files stay whole."""

import importlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dracones.files.atomic import replacing, write_text

SCRIPT = Path(__file__).with_name("writers.py")
KILLED, SIGXFSZ = 77, -25
SINGLE = ("save", "checkpoint", "text", "table")
ALL = (*SINGLE, "report", "maps", "cache")


def run(name, folder, content, kind="none", at=0):
    command = [sys.executable, str(SCRIPT), name, str(folder), str(content), kind, str(at)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files(folder):
    """Every file that a user sees, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ALL)
def test_a_write_that_was_ended_anywhere_leaves_whole_files_and_can_be_done_again(name, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, contents in ((old, [1]), (new, [1, 2])):
        folder.mkdir()
        for content in contents:
            done = run(name, folder, content)
            assert done.returncode == 0, done.stderr
    fsyncs, renames = map(int, done.stdout.split())
    before, after = files(old), files(new)
    assert fsyncs >= 1
    assert renames >= 1
    largest = max(len(data) for data in after.values())
    points = [("bytes", 10), ("bytes", largest // 2), ("bytes", largest - 1), ("full", 10), ("full", largest - 1)]
    points += [("fsync", i) for i in {1, fsyncs}] + [("rename", i) for i in {1, renames}]
    for kind, at in points:
        folder = tmp_path / f"{kind}{at}"
        shutil.copytree(old, folder)
        ended = run(name, folder, 2, kind, at)
        said = f"{name}, {kind} {at}: {ended.returncode} {ended.stderr[-500:]}"
        if kind == "full":
            # A cache that finds no room goes on without.
            assert ended.returncode == (0 if name == "cache" else 1), said
            assert name == "cache" or "OSError: could not write" in ended.stderr, said
        else:
            assert ended.returncode == (SIGXFSZ if kind == "bytes" else KILLED), said
        for path, data in files(folder).items():
            assert data in (before.get(path), after.get(path)), f"{said}: {path} is neither the old nor the new"
        assert before.keys() <= files(folder).keys(), said
        again = run(name, folder, 2)
        assert again.returncode == 0, again.stderr
        assert files(folder) == after, said
        if name != "cache":  # what a killed process left in the cache is swept after an hour
            assert everything(folder) == everything(new), said


@pytest.mark.parametrize("name", SINGLE)
def test_bytes_are_on_the_disk_before_the_name_is(name, tmp_path, monkeypatch):
    """A power cut after the rename must not find an empty file under the good name."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    writers = importlib.import_module("writers")
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
    writers.WRITERS[name](tmp_path, 1)
    renames = [i for i, event in enumerate(events) if event[0] == "rename"]
    assert renames
    for i in renames:
        _, inode, size = events[i]
        assert ("fsync", inode, size) in events[:i], "the file was renamed before its bytes were on the disk"
        folder = events[i + 1][1]
        assert any(event[:2] == ("fsync", folder) for event in events[i:]), "the folder was not synchronised"


def test_a_link_is_followed_and_a_mode_is_kept(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    write_text(target, "old")
    target.chmod(0o600)
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "to come")
    write_text(dangling, "here")
    assert (tmp_path / "to come").read_text() == "here"


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((Path("/dev/null"), "device"), (tmp_path / "pipe", "pipe"), (tmp_path, "folder")):
        with pytest.raises(OSError, match=f"could not write {path} .*{what}"):
            write_text(path, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_what_is_being_written_is_not_swept(tmp_path):
    with replacing(tmp_path / "result") as first:
        first.write_text("first")
        write_text(tmp_path / "result", "second")
        assert first.exists()
    assert (tmp_path / "result").read_text() == "first"
    stale = tmp_path / ".result.abc.partial"
    stale.write_text("left by a killed process")
    other = tmp_path / ".other.abc.partial"
    other.write_text("of another file")
    write_text(tmp_path / "result", "third")
    assert not stale.exists()
    assert other.exists()
