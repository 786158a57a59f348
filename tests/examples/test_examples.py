"""Every example is short and does what its first lines say, as its reader would start it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from docs_world import folder

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, place: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DRACONES_CACHE": str(place / "cache")}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+|-?\d+", text)]


def test_every_example_is_tested_and_short() -> None:
    tests = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.stem}"' in tests, f"{path.name} has no test"
        assert len(path.read_text().splitlines()) < 60, f"{path.name} is too long for an example"


def test_two_moons(tmp_path: Path) -> None:
    inside, between, far = numbers(run("two_moons", "--steps", "100", place=tmp_path))
    assert inside > between > far
    assert (tmp_path / "moons.png").stat().st_size > 1000


def test_own_rule(tmp_path: Path) -> None:
    plain, own = numbers(run("own_rule", place=tmp_path))
    assert plain < 0.5 < 0.8 < own


def test_own_method(tmp_path: Path) -> None:
    assert "found: 5 of 5; hottest rows: [8, 8, 8, 8, 8]" in run("own_method", place=tmp_path)


def test_guard_classifier(tmp_path: Path) -> None:
    told = run("guard_classifier", place=tmp_path)
    fresh, promised, noise = numbers(told.splitlines()[0])
    assert promised == 5
    assert fresh < 15
    assert noise > 90
    assert "logits (1, 8)" in told


def test_folder_to_heatmaps(tmp_path: Path) -> None:
    folder(tmp_path / "good", 70, (64, 64))
    folder(tmp_path / "incoming", 2, (64, 64), seed=5, defect=True)
    told = run("folder_to_heatmaps", "good", "incoming", "--size", "64", place=tmp_path)
    assert told.count("ANOMALY") == 2
    assert len(list((tmp_path / "heat").rglob("*.heat.png"))) == 2


def test_why_a_likelihood_lies(tmp_path: Path) -> None:
    told = run("why_a_likelihood_lies", "--epochs", "1", "--count", "40", place=tmp_path)
    likelihood, auto = (numbers(line)[0] for line in told.splitlines()[:2])
    assert likelihood < 0.2
    assert auto > 0.8
    assert "log_prob_latent:" in told
