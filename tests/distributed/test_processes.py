"""Work shared out among processes: in order, each once, whoever dies."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import process_case
from dracones.distributed.processes import Helpers


def waiting(helpers):
    """Work of this process that leaves items for the others, once they are there."""

    def own(item):
        deadline = time.monotonic() + 60
        while not all(helper.pipe.poll() or helper.ready for helper in helpers._helpers):
            assert time.monotonic() < deadline, "no helper came"
            time.sleep(0.01)
        time.sleep(0.05)
        return item

    return own


def test_results_come_in_order_and_all_processes_work():
    with Helpers(process_case.naming, 2) as helpers:
        begun = waiting(helpers)
        found = list(helpers.share(range(60), lambda item: (begun(item) and 0) or os.getpid()))
    assert len(found) == 60
    assert len(set(found)) == 3
    with Helpers(process_case.doubling, 1) as helpers:
        begun = waiting(helpers)
        assert list(helpers.share(range(30), lambda item: 2 * begun(item))) == list(range(0, 60, 2))


def test_an_error_is_raised_when_its_turn_comes():
    given, fail = [], process_case.failing()
    with Helpers(process_case.failing, 1) as helpers:
        begun = waiting(helpers)
        results = helpers.share(range(50), lambda item: fail(begun(item)))
        with pytest.raises(OSError, match="No space left"):
            given.extend(results)
    assert given == [0, 1, 2, 3, 4]


def test_an_error_that_cannot_cross_is_told_in_words():
    with Helpers(process_case.odd, 1) as helpers, pytest.raises(RuntimeError, match="_Odd: one"):
        list(helpers.share(range(50), waiting(helpers)))


def test_a_helper_that_refuses_ends_the_work():
    with Helpers(process_case.refusing, 1) as helpers, pytest.raises(ValueError, match="the list has changed"):
        list(helpers.share(range(50), waiting(helpers)))


def lives(folder, count):
    for number in range(count):
        (folder / str(number)).touch()
    return str(folder)


def test_a_killed_helper_is_replaced_and_nothing_lost(tmp_path):
    with Helpers(partial(process_case.dying, lives(tmp_path, 2)), 1) as helpers:
        first = waiting(helpers)
        with pytest.warns(RuntimeWarning, match="one of the processes died .by SIGKILL.; another takes its place"):
            found = list(helpers.share(range(40), lambda item: first(item) if item == 0 else item))
    assert found == list(range(40))


def test_three_deaths_over_one_item_end_the_work_by_its_name(tmp_path):
    make = partial(process_case.dying, lives(tmp_path, 5))
    with Helpers(make, 1, name_of="image {}".format) as helpers:
        first = waiting(helpers)
        results = helpers.share(range(40), lambda item: first(item) if item == 0 else item)
        with (
            pytest.warns(RuntimeWarning, match="another takes its place"),
            pytest.raises(RuntimeError, match="3 processes died over image 1, the last by SIGKILL"),
        ):
            list(results)


def test_helpers_that_cannot_start_leave_the_work_to_this_process():
    def own(item):
        time.sleep(0.1)
        return item

    with Helpers(process_case.stillborn, 1) as helpers, pytest.warns(RuntimeWarning, match="the work goes on in 1"):
        assert list(helpers.share(range(40), own)) == list(range(40))


PARENT = """
import os, signal, sys, time
import process_case
from dracones.distributed.processes import Helpers

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
    with Helpers(process_case.naming, 1) as helpers:
        print(helpers._helpers[0].process.pid, flush=True)
        for _ in helpers.share(range(10**6), process_case.own_names):
            pass
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    folder = str(Path(process_case.__file__).parent)
    world = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    with subprocess.Popen(
        [sys.executable, script], env=world, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        helper = int(parent.stdout.readline())
        time.sleep(1)
        parent.send_signal(how)
        try:
            said = parent.communicate(timeout=60)[1]
        finally:
            parent.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{helper}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{helper}").exists()
    assert said.count("Traceback") == (how == signal.SIGINT), said
