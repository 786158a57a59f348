"""Actors that are killed, drivers that are killed, addresses that do not answer."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import shard_case
from dracones.distributed.on_ray import on_ray
from dracones.distributed.shard_run import run
from dracones.distributed.shards import MANIFEST, plan
from dracones.images import open_images

pytest.importorskip("ray", reason="needs ray")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("ray")
    shard_case.write_model(root)
    shard_case.write_shards(root / "set")
    alone = shard_case.scorer(root / "alone", root / "model.safetensors")
    for shard in plan(str(root / "set"), 10, open_images).shards:
        alone.score(shard)
    return root


def check_equal(place, out):
    tables = sorted((place / "alone").glob("*.csv"))
    assert sorted(path.name for path in out.glob("*.csv")) == [path.name for path in tables]
    assert all((out / path.name).read_bytes() == path.read_bytes() for path in tables)


def test_killed_actors_lose_and_repeat_nothing(place, tmp_path, monkeypatch):
    # Where actors find this folder's modules.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(shard_case.__file__).parent), *sys.path]))
    out, model = tmp_path / "out", place / "model.safetensors"
    shard_case.lives(tmp_path, s0=1, s3=2)
    make = partial(shard_case.dying, str(out))
    shards = plan(str(place / "set"), 10, open_images)
    tally = run(shards, lambda left: on_ray(left, model, make, address="local", workers=2), out, ".csv", {})
    assert (tally.scored, tally.unread) == (59, 1)
    assert not list((tmp_path / "lives").rglob("*.tar/*")), "three actors were killed"
    check_equal(place, out)


def test_a_killed_driver_is_taken_up(place, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "dracones", "score", str(place / "model.safetensors"), str(place / "set")]
    command += ["--shards", str(out), "--ray", "local", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as driver:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and driver.poll() is None and not list(out.glob("*.csv")):
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
    done = len((out / MANIFEST).read_bytes().splitlines()) - 1
    assert done < 6, "the run ended before it could be killed"
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "59 scored, 1 unreadable" in ended.stderr
    check_equal(place, out)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 within 5 s"),
        ("ray://127.0.0.1:1", "no Ray cluster answers at"),
        ("nonsense", "give local, auto, or host:port"),
        ("127.0.0.1:port", "no Ray cluster answers at"),
    ],
)
def test_an_address_that_does_not_answer_is_one_error(place, tmp_path, address, said):
    shards = plan(str(place / "set"), 10, open_images).shards
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=said):
        next(on_ray(shards, place / "model.safetensors", partial(shard_case.scorer, "x"), address=address))
    assert time.monotonic() - started < 30
