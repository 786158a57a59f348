"""A journal after kills, full disks and changed minds."""

import resource
import subprocess
import sys

import pytest

from dracones.files.journal import Journal

FACTS = {"model": "a", "count": 3}


def numbers(journal):
    return [row["n"] for row in journal.rows()]


def write(path, count):
    with Journal.begin(path, FACTS) as journal:
        for n in range(count):
            journal.append([{"n": n}])
    return path.read_bytes()


def test_wherever_a_kill_falls_the_whole_rows_count(tmp_path):
    path = tmp_path / "rows"
    data = write(path, 3)
    header = data.index(b"\n") + 1
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        with Journal.resume(path, FACTS) as journal:
            whole = data[header:cut].count(b"\n") if cut >= header else 0
            assert (journal.count, numbers(journal)) == (whole, list(range(whole)))
            journal.append([{"n": whole}])
            assert numbers(journal) == list(range(whole + 1))


def test_zeros_where_a_line_should_be_end_the_rows(tmp_path):
    path = tmp_path / "rows"
    data = write(path, 3)
    path.write_bytes(data[:-9] + b"\0" * 7 + b"}\n")
    with Journal.resume(path, FACTS) as journal:
        assert numbers(journal) == [0, 1]


def test_other_facts_are_refused_by_name(tmp_path):
    write(tmp_path / "rows", 1)
    with pytest.raises(ValueError, match="model was 'a' and is 'b'"):
        Journal.resume(tmp_path / "rows", {**FACTS, "model": "b"})
    (tmp_path / "rows").write_text("path,score\n")
    with pytest.raises(ValueError, match="not the journal of a killed run"):
        Journal.resume(tmp_path / "rows", FACTS)


def test_keep_forgets_the_rest(tmp_path):
    path = tmp_path / "rows"
    write(path, 5)
    with Journal.resume(path, FACTS) as journal:
        journal.keep(9)
        assert journal.count == 5
        journal.keep(2)
        journal.append([{"n": "new"}])
        assert numbers(journal) == [0, 1, "new"]


def test_two_runs_do_not_write_one_journal(tmp_path):
    with Journal.begin(tmp_path / "rows", FACTS) as journal:
        journal.append([{"n": 0}])
        for opened in (Journal.begin, Journal.resume):
            with pytest.raises(OSError, match="another run is writing"):
                opened(tmp_path / "rows", FACTS)
        assert numbers(journal) == [0]


def test_begin_replaces_what_was_there(tmp_path):
    write(tmp_path / "rows", 5)
    with Journal.begin(tmp_path / "rows", {"model": "b"}) as journal:
        assert journal.count == 0
    assert (tmp_path / "rows").read_bytes() == b'{"model": "b"}\n'


FULL = """
import resource, sys
from pathlib import Path
from dracones.files.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
with Journal.begin(Path(sys.argv[1]), {"model": "a"}) as journal:
    try:
        for n in range(100):
            journal.append([{"n": 2 * n, "text": "x" * 37}, {"n": 2 * n + 1}])
    except OSError as error:
        print(journal.count, error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of files here")
def test_a_full_disk_leaves_whole_rows_and_says_so(tmp_path):
    path = tmp_path / "rows"
    ended = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
    count, message = ended.stdout.split(" ", 1)
    assert f"its {count} rows are whole" in message
    assert 10 < int(count) < 50
    with Journal.resume(path, {"model": "a"}) as journal:
        assert numbers(journal) == list(range(int(count)))
