"""`dracones compare`, and the verbs on a guard, from the command line."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from dracones.cli.main import app

SOURCE = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier by file and weights, and three sets of 8x8 gray images."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "nets.py").write_text(SOURCE)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    save_file(net.state_dict(), folder / "net.safetensors")
    rng = np.random.default_rng(0)
    images = {"normal": rng.integers(90, 160, (60, 8, 8)), "near": rng.integers(60, 190, (30, 8, 8))}
    images["far"] = rng.integers(0, 256, (30, 8, 8))
    for name, array in images.items():
        np.save(folder / f"{name}.npy", array.astype(np.uint8))
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def classifier(files):
    return ["--classifier", f"{files / 'nets.py'}:net", "--classifier-weights", files / "net.safetensors"]


def sets(files):
    far, near = f"noise={files / 'far.npy'}", f"spread={files / 'near.npy'}"
    return ["--train", files / "normal.npy", "--normal", files / "normal.npy", "--near", near, "--far", far]


def test_table_and_json(files):
    methods = ["--methods", "msp,energy,knn", "--set", "knn.k=3", "--set", "mean=[0.5]", "--set", "std=[0.2]"]
    result = run("compare", *classifier(files), *sets(files), *methods, "--json", "-o", files / "out.json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout.splitlines()[-1])
    assert printed == json.loads((files / "out.json").read_text())
    assert printed["counts"] == {"train": 60, "normal": 60, "spread": 30, "noise": 30}
    assert {(row["method"], row["group"]) for row in printed["rows"]} == {
        (method, group) for method in ("msp", "energy", "knn") for group in ("near", "far")
    }
    shown = run("compare", *classifier(files), *sets(files), *methods, "--metric", "fpr_at_tpr95")
    assert shown.exit_code == 0, shown.output
    for word in ("near mean", "far mean", "noise (far)", "spread (near)", "energy"):
        assert word in shown.stdout


def test_all_names_what_it_leaves_out(files):
    result = run(
        "compare",
        *classifier(files),
        *sets(files),
        "--set",
        "knn.k=3",
        "--set",
        "odin.epsilon=0.01",
        "--set",
        "vim.dimensions=1",
        "--json",
    )
    assert result.exit_code == 0, result.output
    failed = json.loads(result.stdout.splitlines()[-1])["failed"]
    assert set(failed) == {"mahalanobis", "relative_mahalanobis"}  # the arrays carry no labels
    assert "needs class labels" in failed["mahalanobis"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "accuracy"], "--metric is one of auroc"),
        (["--far", "x"], "--far takes NAME=DATA, got 'x'"),
        (["--methods", "mps"], "unknown method 'mps'"),
        (["--set", "lair=3"], "unknown option 'lair'"),
    ],
)
def test_mistakes_are_named(files, arguments, message):
    result = run("compare", *classifier(files), *sets(files), *arguments)
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)


def test_a_guard_by_the_usual_verbs(files):
    model = files / "guard.safetensors"
    result = run("fit", "energy", files / "normal.npy", "-o", model, *classifier(files), "--false-alarm-rate", 0.2)
    assert result.exit_code == 0, result.output
    refused = run("score", model, files / "far.npy")
    assert "--classifier on the command line" in str(refused.exception)
    named = classifier(files)[:2]
    scored = run("score", model, files / "far.npy", *named, "--json")
    assert scored.exit_code == 0, scored.output
    assert len(json.loads(scored.stdout.splitlines()[-1])["images"]) == 30
    calibrated = run("calibrate", model, files / "normal.npy", "--false-alarm-rate", 0.1, *named)
    assert calibrated.exit_code == 0, calibrated.output
    judged = run(
        "evaluate", model, "--normal", files / "normal.npy", "--anomalous", files / "far.npy", *named, "--json"
    )
    assert judged.exit_code == 0, judged.output
