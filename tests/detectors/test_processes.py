"""A fit in two processes: the threshold of one, found once, known to both."""

import numpy as np
import pytest
import torch

import dracones
from dracones.training.world import launched

OPTIONS = {"epochs": 2, "batch_size": 16, "density": {"steps": 2, "hidden": 8}, "rule": "likelihood"}


def images():
    generator = np.random.default_rng(0)
    level = generator.normal(110, 20, (150, 1, 1))
    return generator.normal(level, 25, (150, 8, 8)).clip(0, 255).astype(np.uint8)


def made():
    return dracones.create("glow", **OPTIONS, false_alarm_rate=0.1)


def _fit(folder):
    from accelerate.state import AcceleratorState

    from dracones.methods.likelihood import Likelihood

    # Forked from a process that may have trained alone.
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    rank = launched()
    gather = Likelihood.fit_statistics

    def counted(self, context):
        (folder / f"statistics{rank.number}").touch()
        gather(self, context)

    Likelihood.fit_statistics = counted
    detector = made().fit(images(), device="cpu")
    scores = detector.predict(images()[:20]).scores.tolist()
    (folder / f"{rank.number}.txt").write_text(repr((detector.threshold, scores)))


def test_two_processes_find_what_one_does(tmp_path):
    from accelerate import debug_launcher

    debug_launcher(_fit, (tmp_path,), num_processes=2)
    found = [eval((tmp_path / f"{rank}.txt").read_text(), {}) for rank in range(2)]  # noqa: S307 - written above
    assert found[0] == found[1]
    assert sorted(path.name for path in tmp_path.glob("statistics*")) == ["statistics0"]
    alone = made().fit(images(), device="cpu")
    assert found[0][0] == pytest.approx(alone.threshold, rel=1e-4)
    np.testing.assert_allclose(found[0][1], alone.predict(images()[:20]).scores, rtol=1e-3)


def test_one_process_where_several_were_asked_for_is_an_error(monkeypatch):
    assert launched() == (0, 1)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert launched() == (0, 1), "accelerate launch with one process"
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for work in (launched, lambda: made().fit(images(), device="cpu")):
        with pytest.raises(RuntimeError, match="asked for several processes and started one"):
            work()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert launched().processes == 1, "what MPI starts, Accelerate counts"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (launched(), launched().is_main) == ((1, 2), False)


def test_a_world_smaller_than_was_launched_is_an_error(monkeypatch):
    from dracones.training.world import World

    World("cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were launched and this one trains as one of 1"):
        World("cpu")
