"""Every verb in a process of its own, as a shell starts it: exit code, what is printed, what is written."""

import csv
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dracones
from dracones.cli.main import app

NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
"""
# The whole demo takes half a minute: here the same command learns and judges fewer crops, in fewer steps.
SHORT_DEMO = """
from dataclasses import replace
import dracones.demo
from dracones.cli import main
from dracones.demo import story
cut = dracones.demo.demo_images

def few(seed):
    images = cut(seed, train=96, calibration=60, test=24)
    return replace(images, others={name: others[:24] for name, others in images.others.items()})

story._STEPS = 5
dracones.demo.demo_images = few
main()
"""
FIT = ["fit", "glow", "normal", "-o", "model.safetensors", "--calibrate", "more", "--false-alarm-rate", "0.05"]
TINY = ["--set", "epochs=1", "--set", "density.steps=1", "--set", "density.hidden=4", "--set", "rule=typicality"]
SLOW = ("graying", "second order", "latents", "couplings", "co-adaptation", "ensemble", "negative training", "checks")
SKIPPED = [word for name in SLOW for word in ("--skip", name)]


@dataclass(frozen=True)
class Ended:
    """What a process left: its exit code, and its two streams as bytes were read as text."""

    code: int
    out: str
    err: str


def start(folder: Path, *words: str, program: tuple[str, ...] = ("-m", "dracones"), **environment: str) -> Ended:
    """Run `python -m dracones words` in the folder."""
    done = subprocess.run(
        [sys.executable, *program, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=300,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def save_images(folder: Path, count: int, level: int, seed: int) -> None:
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(seed).normal(level, 10, (count, 8, 8))):
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A folder with images, a classifier, and the model that `dracones fit` wrote; and how `fit` ended."""
    folder = tmp_path_factory.mktemp("executable")
    for name, count, level in (("normal", 60, 60), ("more", 120, 60), ("odd", 20, 200)):
        save_images(folder / name, count, level, seed=count)
    (folder / "net.py").write_text(NET)
    (folder / "file").write_text("in the way")
    rows = [f"line/{i:03}.png,{i % 7 + 20 * (i > 60)}" for i in range(100)]
    (folder / "seen.csv").write_text("\n".join(["path,score", *rows]))
    positions = dracones.create("padim", backbone="mobilenetv1_025", weights="random", size=(32, 32), levels=(1, 2))
    positions.fit(str(folder / "normal")).save(folder / "positions.safetensors")
    return folder, start(folder, *FIT, *TINY)


def demo_told(folder: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    written = json.loads((folder / "demo/results.json").read_text())
    assert told["auroc"] == written["auroc"]
    assert told["false_alarm_rate"] == written["false_alarm_rate"]
    assert all((folder / name).stat().st_size for name in told["files"])
    assert {"model.safetensors", "scores.csv", "report.html"} <= {Path(name).name for name in told["files"]}


def methods_told(_: Path, ended: Ended) -> None:
    from dracones.methods import methods

    told = json.loads(ended.out)["methods"]
    assert [record["name"] for record in told] == [info.name for info in methods()]
    assert all(record["title"] and record["url"] and record["gives"] for record in told)


def calibrate_told(folder: Path, ended: Ended) -> None:
    assert (folder / "stricter.safetensors").is_file()
    assert json.loads(ended.out)["false_alarm_rate"] == 0.02


def score_told(folder: Path, ended: Ended) -> None:
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{i:03}.png" for i in range(20)]
    assert sum(row["is_anomaly"] == "true" for row in rows) == 20
    assert sum(".png" in line for line in ended.out.splitlines()) == 20
    assert "20 of 20 above the threshold" in ended.err


def monitor_told(folder: Path, ended: Ended) -> None:
    (stream,) = json.loads(ended.out)["streams"]
    assert stream["changed"]
    assert stream["since_path"] == "line/061.png"
    assert (folder / "curve.html").stat().st_size > 1000


def audit_told(_: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told["images"] == 120
    assert 0 < len(told["audit"]) < 60


def recalibrate_told(folder: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert (told["joined"], told["old_images"]) == (120, 0)
    assert (folder / "again.safetensors").is_file()


def evaluate_told(_: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told["image"]["auroc"]["value"] == 1.0


def update_told(folder: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told["update"]["images"]["learnt"] == 108
    assert (folder / "grown.safetensors").is_file()


def sensitivity_told(_: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert [row["of"] for row in told["cells"]] == [2] * 15
    assert "synthetic" in told["notes"][0]


def compare_told(folder: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told == json.loads((folder / "compared.json").read_text())
    assert {row["method"] for row in told["rows"]} == {"msp", "knn"}
    assert told["counts"] == {"train": 60, "normal": 120, "odd": 20}


def report_told(folder: Path, ended: Ended) -> None:
    assert "The two sets are told apart." in (folder / "report.html").read_text()
    assert ended.out == "" or "report.html" in ended.out


def explain_told(folder: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told["verdict"] == json.loads((folder / "why.json").read_text())["verdict"]
    assert told["verdict"]["text"].split(":")[0] in (folder / "why.html").read_text()


def verify_told(_: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told["passed"]
    assert "at most 5.00% false alarms" in told["checks"][-1]["detail"]


def export_told(folder: Path, ended: Ended) -> None:
    told = json.loads(ended.out)
    assert told["bytes"] == (folder / "line.pt2").stat().st_size
    assert told["calibrated"]


Check = Callable[[Path, Ended], None]
TWO_SIDES = ["--normal", "more", "--anomalous", "odd"]
CLASSIFIED = ["--train", "normal", "--normal", "more", "--far", "odd=odd"]
TWO_METHODS = ["--methods", "msp,knn", "--set", "knn.k=3"]
RUNS: dict[str, tuple[list[str], Check]] = {
    "demo": (["-o", "demo", "--json"], demo_told),
    "methods": (["--json"], methods_told),
    "calibrate": (
        ["model.safetensors", "more", "--false-alarm-rate", "0.02", "-o", "stricter.safetensors", "--json"],
        calibrate_told,
    ),
    "score": (["model.safetensors", "odd", "-o", "scores.csv"], score_told),
    "monitor": (["seen.csv", "-o", "curve.html", "--json"], monitor_told),
    "audit": (["more", "--share", "0.2", "--json"], audit_told),
    "recalibrate": (
        ["model.safetensors", "more", "--audit-share", "1", "--without-old", "-o", "again.safetensors", "--json"],
        recalibrate_told,
    ),
    "evaluate": (["model.safetensors", *TWO_SIDES, "--json"], evaluate_told),
    "compare": (
        [*CLASSIFIED, "--classifier", "net.py:net", *TWO_METHODS, "-o", "compared.json", "--json"],
        compare_told,
    ),
    "report": (["model.safetensors", *TWO_SIDES, "-o", "report.html"], report_told),
    "update": (["positions.safetensors", "more", "-o", "grown.safetensors", "--json"], update_told),
    "sensitivity": (["model.safetensors", "more", "--defects", "2", "--size", ".5", "--json"], sensitivity_told),
    "explain": (
        [
            "model.safetensors",
            "--normal",
            "more",
            "--other",
            "odd=odd",
            "--count",
            "20",
            *SKIPPED,
            "-o",
            "why.html",
            "--json",
        ],
        explain_told,
    ),
    "verify": (["model.safetensors", "--json"], verify_told),
    "export": (["model.safetensors", "-o", "line.pt2", "--json"], export_told),
}
BAD: dict[str, tuple[list[str], str]] = {
    "demo": (["-o", "file"], "cannot write to file: it is a file; name a folder"),
    "methods": (["glo"], "did you mean 'glow'"),
    "fit": (["glow", "normal", "-o", "nowhere/model.safetensors"], "the folder nowhere does not exist"),
    "calibrate": (["model.safetensors", "mor"], "no such file or folder: mor; did you mean"),
    "score": (["model.safetensors", "odd", "-o", "file/scores.csv"], "file"),
    "monitor": (["seen.csv", "--source", "camera"], "there is no column 'camera'"),
    "audit": (["more", "--share", "0"], "expected a share above 0"),
    "recalibrate": (["model.safetensors", "more", "--audit-share", "2", "-o", "x.safetensors"], "at most 1, got 2"),
    "evaluate": (["model.safetensors", "--normal", "more"], "give --normal DATA and --anomalous DATA"),
    "compare": ([*CLASSIFIED, "--classifier", "no.py:net"], "no Python file at no.py"),
    "report": (["model.safetensors", *TWO_SIDES, "-o", "nowhere/r.html"], "the folder nowhere does not exist"),
    "update": (["model.safetensors", "more", "-o", "new.safetensors"], "glow cannot learn on"),
    "sensitivity": (["model.safetensors", "more", "--size", "2"], "expected different shares in (0, 1]"),
    "explain": (["model.safetensors", "--normal", "more", "--other", "odd="], "--other takes NAME=DATA"),
    "verify": (["none.safetensors"], "no model file at none.safetensors"),
    "serve": (["no.safetensors"], "no such model file: no.safetensors"),
    "export": (["model.safetensors", "-o", "nowhere/line.onnx"], "the folder nowhere does not exist"),
}


def test_no_verb_is_forgotten() -> None:
    verbs = {command.name for command in app.registered_commands}
    # `serve` does not end by itself: tests/serving runs it as a process.
    assert {"fit", "serve", *RUNS} == verbs
    assert set(BAD) == verbs


def test_fit_writes_a_model_and_its_options(world: tuple[Path, Ended]) -> None:
    folder, ended = world
    assert ended.code == 0, ended.err
    assert (folder / "model.safetensors").stat().st_size > 1000
    assert 'rule = "typicality"' in (folder / "model.toml").read_text()
    assert "at most 5.00% of normal images above it" in ended.out + ended.err


@pytest.mark.parametrize("verb", RUNS)
def test_a_verb_does_what_it_says(world: tuple[Path, Ended], verb: str) -> None:
    folder, _ = world
    words, check = RUNS[verb]
    ended = start(folder, verb, *words, program=("-c", SHORT_DEMO) if verb == "demo" else ("-m", "dracones"))
    assert ended.code == 0, ended.err
    check(folder, ended)


@pytest.mark.parametrize("verb", BAD)
def test_bad_input_is_refused_in_a_line(world: tuple[Path, Ended], verb: str) -> None:
    folder, _ = world
    words, message = BAD[verb]
    ended = start(folder, verb, *words)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert ended.out == ""


def test_the_installed_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "dracones"
    if not script.is_file():
        pytest.skip(f"dracones is not installed here: no {script}")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert all(f" {command.name} " in done.stdout for command in app.registered_commands)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file's name is text")
@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}],
    ids=["C", "C without UTF-8", "ASCII streams"],
)
def test_no_name_is_lost_whatever_the_locale(world: tuple[Path, Ended], tmp_path: Path, locale: dict[str, str]) -> None:
    folder, _ = world
    save_images(tmp_path / "names", 3, 200, seed=3)
    (tmp_path / "names/000.png").rename(tmp_path / "names/größe.png")
    (tmp_path / "names/001.png").rename(os.fsdecode(os.fsencode(tmp_path / "names") + b"/caf\xe9.png"))
    as_json = [] if "PYTHONIOENCODING" in locale else ["--json"]
    model = str(folder / "model.safetensors")
    ended = start(tmp_path, "score", model, "names", "-o", "scores.csv", *as_json, **locale)
    assert ended.code == 0, ended.err
    # Where the file system is not UTF-8 to Python, the bytes of größe.png are shown like those of the other name.
    known = {"002.png", r"caf\xe9.png", r"gr\xc3\xb6\xc3\x9fe.png" if "PYTHONUTF8" in locale else "größe.png"}
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as file:
        assert {row["path"] for row in csv.DictReader(file) if row["score"]} == known
    if as_json:
        assert {row["path"] for row in json.loads(ended.out)["images"]} == known
    else:
        assert all(name in ended.out for name in ("002.png", r"caf\xe9.png", r"gr\xf6\xdfe.png"))
