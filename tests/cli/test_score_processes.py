"""`dracones score --processes`: the very table of one process, and several only where they win."""

import sys
import time

import numpy as np
import pytest
import torch

import dracones
import shard_case
from dracones.cli import main
from dracones.cli.score_processes import Task, _answering, processes_that_win
from dracones.distributed.processes import Helpers
from dracones.distributed.table import facts_of
from dracones.files.journal import Journal
from dracones.images import open_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("processes")
    shard_case.write_model(root)
    shard_case.write_shards(root / "set")
    return root


@pytest.fixture
def shared(monkeypatch):
    """Has this process wait for the others, so that they score too; which process gave each result."""
    share, owners = Helpers.share, []

    def waiting(self, items, own):
        assert all(helper.pipe.poll(120) for helper in self._helpers)

        def slow(item):
            time.sleep(0.1)
            owners.append(item)
            return own(item)

        return share(self, items, slow)

    monkeypatch.setattr(Helpers, "share", waiting)
    return owners


class Killed(BaseException):
    """As good as kill -9."""


def test_a_resumed_table_of_two_processes_has_the_bytes_of_one(run, place, tmp_path, monkeypatch, shared):
    whole, cut = tmp_path / "whole.csv", tmp_path / "cut.csv"
    command = ["score", place / "model.safetensors", place / "set", "--batch-size", 4, "-o"]
    out = run(*command, whole)
    append, left = Journal.append, iter([1, 1])

    def dying(self, rows):
        if next(left, None) is None:
            raise Killed
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", dying)
        patch.setattr(sys, "argv", ["dracones", *map(str, [*command, cut])])
        with pytest.raises(Killed):
            main()
    assert cut.with_name("cut.csv.unfinished").read_bytes().count(b"\n") == 9
    told = run(*command, cut, "--resume", "--processes", 2)
    assert cut.read_bytes() == whole.read_bytes()
    assert told[1].replace(str(cut), str(whole)) == out[1]
    assert 0 < len(shared) < 13, "blocks that the first process scored of those that were left"


def facts(place):
    images = dracones.load(place / "model.safetensors").adopt(open_images(str(place / "set")))
    return facts_of(place / "model.safetensors", images, max_pixels=None, pages="first")


@pytest.mark.usefixtures("shared")
def test_shards_of_two_processes_are_those_of_one(run, place, tmp_path):
    command = ["score", place / "model.safetensors", place / "set", "--json", "--shards"]
    one = run(*command, tmp_path / "one")[0]
    assert run(*command, tmp_path / "two", "--processes", 2)[0] == one
    tables = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(tables) == 7
    assert all((tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in tables)


def test_another_list_or_model_is_not_scored_by_the_others(place):
    task = Task(place / "model.safetensors", str(place / "set"), {}, None, None, 4, facts(place))
    assert [answer.path for answer in _answering(task, None)(range(2, 4))] == ["0.tar/0-2.png", "0.tar/0-3.png"]
    with pytest.raises(ValueError, match=r"changed while they were opened \(count, names\)"):
        _answering(task._replace(facts={**task.facts, "count": 59, "names": "0"}), None)


def test_several_processes_are_taken_where_they_win():
    def detector(side, **options):
        pixels = np.random.default_rng(0).integers(60, 120, (60, side, side), dtype=np.uint8)
        made = dracones.create(
            "glow", epochs=1, calibration_share=0, rule="typicality", density={"steps": 1, "hidden": 4}, **options
        )
        return made.fit(pixels, device="cpu")

    small = detector(8)
    assert processes_that_win(small, 5_000) == 1, "there is one thread"
    torch.set_num_threads(2)
    assert processes_that_win(small, 5_000) == 2
    assert processes_that_win(small, 4_999) == 1
    assert processes_that_win(small.tiled((8, 8)), 5_000) == 1
    torch.set_num_threads(12)
    assert processes_that_win(small, 5_000) == 8
    assert processes_that_win(object(), 5_000) == 1, "an exported file"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--maps", "m"], "leave out --processes"),
        (["--threads", "2"], "leave out --threads"),
        (["--device", "cuda"], "leave out --device"),
        (["--shards", "s", "--ray", "local"], "with --ray, --workers"),
    ],
)
def test_what_several_processes_do_not_do(run, place, tmp_path, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    assert said in run("score", place / "model.safetensors", place / "set", "--processes", 2, *more, code=2)[1]
    assert not list(tmp_path.iterdir())
