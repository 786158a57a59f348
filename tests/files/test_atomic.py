"""Writing: whole or not at all, through links, with the mode kept, never over a device, nothing left behind."""

import os
import stat
import subprocess
import sys
import time

import pytest

from dracones.files.atomic import replacing, write_text
from dracones.files.writers import is_abandoned, writer

posix = pytest.mark.skipif(sys.platform == "win32", reason="links, modes and devices of POSIX")


@posix
def test_a_device_a_pipe_and_a_folder_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for target in ("/dev/null", tmp_path / "pipe"):
        with pytest.raises(OSError, match="a device or pipe is in its place"):
            write_text(target, "x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116
    with pytest.raises(OSError, match="a folder is in its place"):
        write_text(tmp_path, "x")


@posix
def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    target, link = tmp_path / "deep" / "target.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    target.unlink()
    write_text(link, "again")
    assert link.is_symlink()
    assert target.read_text() == "again"


@posix
def test_the_mode_is_kept(tmp_path):
    path = write_text(tmp_path / "secret.txt", "old")
    path.chmod(0o600)
    write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_killed_runs_left_is_swept_and_what_others_write_is_not(tmp_path):
    path = tmp_path / "scores[1].csv"
    stale, fresh, foreign = (
        tmp_path / name for name in (".scores[1].csv.aa.partial", ".scores[1].csv.bb.partial", ".x.partial")
    )
    for left in (stale, fresh, foreign):
        left.write_text("half")
    for left in (stale, foreign):
        os.utime(left, (time.time() - 7200,) * 2)
    write_text(path, "whole")
    assert not stale.exists()
    assert fresh.exists()
    assert foreign.exists()


@posix
def test_what_a_dead_process_left_a_moment_ago_is_swept(tmp_path):
    script = (
        "import os, sys; from dracones.files.atomic import replacing\n"
        "with replacing(sys.argv[1]) as temporary: temporary.write_text('half'); os._exit(9)"
    )
    path = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1, "the killed run leaves its temporary file"
    with replacing(path) as ours:
        ours.write_text("whole")
        write_text(path, "meanwhile")
        assert ours.exists(), "a living writer's file is not swept"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "whole"


@posix
def test_a_number_that_another_process_has_by_now_keeps_a_file_for_a_day_at_most():
    assert not is_abandoned(writer(), time.time() - 2 * 3600)
    assert is_abandoned(writer(), time.time() - 25 * 3600)


def test_a_failure_leaves_the_last_good_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "a.txt", "good")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
