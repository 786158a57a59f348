"""Exported files in an environment that has no torch: same scores, and how long it takes to the first verdict.

    python -m benchmarks.export.fresh -o benchmarks/export/fresh.json --files FOLDER [--models FOLDER]

Makes a virtual environment of numpy, Pillow, onnxruntime, openvino, typing-extensions and the package without its
dependencies (uv, and an index that has them), exports what FOLDER lacks together with the detector's scores of real
images, and has `first_verdict.py` score each file there. A row a file; the table in docs/deployment.md is made anew.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import provenance, records
from benchmarks.export.models import MODELS, Family, fitted, images_of
from benchmarks.export.page import PAGE, RACE, written
from dracones.export import export

SCRIPT = Path(__file__).with_name("first_verdict.py")
PACKAGES = ("numpy", "pillow", "onnxruntime", "openvino", "typing-extensions")
IMAGES = 16
REPEATS = 5
_CLOCKS = tuple(f"{what}{kind}" for what in ("", "session_", "network_") for kind in ("seconds", "cpu_seconds"))


def environment(folder: Path) -> Path:
    """The interpreter of a new virtual environment that holds `PACKAGES` and dracones alone."""
    python = folder / "bin" / "python"
    subprocess.run(["uv", "venv", "-q", str(folder)], check=True)
    install = ["uv", "pip", "install", "-q", "--python", str(python)]
    subprocess.run([*install, *PACKAGES], check=True)
    subprocess.run([*install, "--no-deps", str(provenance.ROOT)], check=True)
    return python


def pictures(family: Family, folder: Path) -> Path:
    """A folder of the first images to score, as PNG."""
    place = folder / f"images_{family}"
    if not place.exists():
        place.mkdir(parents=True)
        for i, image in enumerate(images_of(family, "score")[0][:IMAGES]):
            Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(place / f"{i:02}.png")
    return place


def exported(name: str, folder: Path, models: Path | None) -> list[Path]:
    """The files of a method and, beside them, what the detector says of the pictures; made where they are missing."""
    stem = folder / name.replace(", ", "_")
    said = stem.with_suffix(".json")
    if not said.exists():
        detector = fitted(name, models)
        place = pictures(MODELS[name].family, folder)
        size = images_of(MODELS[name].family, "score")[0].shape[2:]
        refused = {}
        for suffix, options in ((".onnx", {}), (".xml", {"image_size": size})):
            try:
                export(detector, stem.with_suffix(suffix), **options)
            except ValueError as error:
                refused[suffix] = str(error).splitlines()[0]
        found = detector.predict(place, maps=False)
        verdicts = None if found.is_anomaly is None else found.is_anomaly.tolist()
        spread = float(np.std(detector.calibration.scores))
        told = {"scores": found.scores.tolist(), "verdicts": verdicts, "spread": spread, "refused": refused}
        said.write_text(json.dumps(told))
    return [path for path in (stem.with_suffix(".onnx"), stem.with_suffix(".xml")) if path.exists()]


def run(python: Path, file: Path, images: Path) -> dict[str, Any]:
    """What one start of the runtime says; its own process, one thread, nothing of this one's paths."""
    settings = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    command = [str(python), "-I", str(SCRIPT), str(file), str(images), repr(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def entry(python: Path, file: Path, images: Path) -> dict[str, Any]:
    """One file's row: the least of several starts, and its answers against the detector's."""
    starts = [run(python, file, images) for _ in range(REPEATS)]
    if "failed" in starts[0]:
        return starts[0]
    best = min(starts, key=lambda each: each["cpu_seconds"])
    told = json.loads(file.with_suffix(".json").read_text())
    scores, expected = np.array(best["scores"]), np.array(told["scores"])
    relative = np.abs(scores - expected) / np.maximum(np.abs(expected), max(told["spread"], 1e-30))
    row = {key: best[key] for key in _CLOCKS}
    row |= {f"without_network_{kind}": best[kind] - best[f"network_{kind}"] for kind in ("seconds", "cpu_seconds")}
    row |= {"images": len(scores), "difference": float(relative.max()), "present": best["present"]}
    if told["verdicts"] is not None:
        row["verdicts"] = float((np.array(best["verdicts"]) == np.array(told["verdicts"])).mean())
    return row


def main() -> None:
    """Run what is named, write the record and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows: dict[str, Any] = records.read(arguments.output)["rows"] if arguments.output.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder))
        listed = subprocess.run(
            ["uv", "pip", "freeze", "--python", str(python)], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        for name in arguments.only:
            files = exported(name, arguments.files, arguments.models)
            place = pictures(MODELS[name].family, arguments.files)
            rows[name] = {file.suffix[1:]: entry(python, file, place) for file in files}
            told = json.loads((arguments.files / f"{name.replace(', ', '_')}.json").read_text())
            rows[name] |= {"refused": told["refused"], "commit": provenance.commit()}
            print(name, rows[name], flush=True)
            whole = {**provenance.provenance(), "installed": [each.split(" @ ")[0] for each in listed if each]}
            records.write(arguments.output, {**whole, "rows": dict(sorted(rows.items()))}, digits=3)
    PAGE.write_text(written(PAGE.read_text(), records.read(RACE)))


if __name__ == "__main__":
    main()
