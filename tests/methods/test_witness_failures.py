"""A witness of the ensemble that fails is named; the others go on without it only where that was asked for."""

import json
import sys

import numpy as np
import pytest
import torch

import dracones
from dracones.detectors import fitting
from dracones.methods.feature_flows.cflow import CFlow
from dracones.methods.memories.padim import PaDiM
from dracones.training.guard import NonFiniteError
from feature_case import SMALL, anomalies, normals

OPTIONS = {**SMALL, "scales": 1, "made_defects": 20, "memory_share": 0.02}


def breaks(*_, **__):
    raise ValueError("a covariance of rank 0")


def not_finite(witness, maps, size):
    found = witness.score_as_it_was(maps, size)
    return found._replace(image=found.image * torch.nan)


@pytest.fixture
def broken(monkeypatch):
    """`broken("statistics" | "scores")`: PaDiM fails there."""

    def make(where):
        if where == "statistics":
            monkeypatch.setattr(PaDiM, "fit_statistics", breaks)
        else:
            monkeypatch.setattr(PaDiM, "score_as_it_was", PaDiM.score_maps, raising=False)
            monkeypatch.setattr(PaDiM, "score_maps", not_finite)

    return make


@pytest.mark.parametrize(
    ("where", "reason"),
    [("statistics", "a covariance of rank 0"), ("scores", "its scores of held-out normal images are not finite")],
)
def test_it_is_named_and_the_others_go_on_where_asked(broken, where, reason, tmp_path):
    broken(where)
    message = rf"the witness place \(.*\) failed: {reason}"
    with pytest.raises(RuntimeError, match=rf"ensemble: {message}; the others go on without it with keep_going=True"):
        dracones.create("ensemble", **OPTIONS).fit(normals(30))
    with pytest.warns(RuntimeWarning, match=rf"{message}; the ensemble is whole, patch"):
        detector = dracones.create("ensemble", **OPTIONS, keep_going=True).fit(normals(30))
    assert detector.config.witnesses == ("whole", "patch")
    assert detector.method.weights.shape == (2,)
    assert len(detector.provenance["notes"]) == 1
    loaded = dracones.load(detector.save(tmp_path / "m.safetensors"))
    assert reason in loaded.provenance["notes"][0]
    images = anomalies(3)[0]
    assert np.array_equal(loaded.predict(images).scores, detector.predict(images).scores)
    two = dracones.create("ensemble", **OPTIONS, witnesses=("whole", "patch")).fit(normals(30))
    assert np.allclose(two.predict(images).scores, detector.predict(images).scores)


def test_one_that_cannot_be_trained_is_left_out_too(monkeypatch):
    def diverges(module, *arguments, **options):
        raise NonFiniteError("the loss is nan at step 3")

    monkeypatch.setattr(fitting, "train", diverges)
    options = {**OPTIONS, "witnesses": ("whole", "flow"), "flow_epochs": 1}
    with pytest.raises(RuntimeError, match=r"the witness flow \(.*\) failed: the loss is nan at step 3; the others"):
        dracones.create("ensemble", **options).fit(normals(30))
    with pytest.warns(RuntimeWarning, match="the ensemble is whole"):
        detector = dracones.create("ensemble", **options, keep_going=True).fit(normals(30))
    assert detector.config.witnesses == ("whole",)
    assert not any(isinstance(module, CFlow) for module in detector.method.modules())
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        dracones.create("fastflow", **SMALL, steps=2, epochs=1).fit(normals(30))


def test_the_last_one_cannot_be_done_without(broken):
    broken("statistics")
    with pytest.raises(RuntimeError, match=r"the witness place .* rank 0$"):
        dracones.create("ensemble", **OPTIONS, witnesses=("place",), keep_going=True).fit(normals(30))


def test_the_verb_goes_on_and_says_so(broken, tmp_path, monkeypatch, capsys):
    from dracones.cli import main

    broken("statistics")
    np.save(tmp_path / "good.npy", (normals(30).permute(0, 2, 3, 1) * 255).round().byte().numpy())
    options = [f"--set={key}={json.dumps(value)}" for key, value in OPTIONS.items()]

    def run(*more):
        words = ["fit", "ensemble", tmp_path / "good.npy", "-o", tmp_path / "m.safetensors", *options, *more]
        monkeypatch.setattr(sys, "argv", ["dracones", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().err

    code, err = run()
    assert code == 2
    assert "(--keep-going)" in err
    code, err = run("--keep-going")
    assert code == 0
    assert "failed: a covariance of rank 0; the ensemble is whole, patch" in err


def test_one_that_fails_on_what_was_held_out_is_named_too(monkeypatch):
    monkeypatch.setattr(PaDiM, "learn_on", breaks)
    expected = (
        r"the witness place \(a place\) failed on the images that were held out: a covariance of rank 0; leave it"
    )
    for keep_going in (False, True):
        with pytest.raises(RuntimeError, match=expected):
            dracones.create("ensemble", **OPTIONS, keep_going=keep_going).fit(normals(30))
