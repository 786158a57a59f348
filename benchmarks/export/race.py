"""Exported files against the detectors they came from: difference, verdicts, CPU seconds, size, seconds to export.

    python -m benchmarks.export.race -o benchmarks/export/race.json [--only METHOD ...] [--models FOLDER]

A run of some methods leaves the others' rows, each of which says its own commit; the table in docs/deployment.md is
made anew. `--models` keeps the fitted models, so that a run that was stopped fits none twice.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import provenance, records
from benchmarks.export.models import MODELS, SCORED, fitted, images_of
from benchmarks.export.page import PAGE, written
from dracones import runtime
from dracones.detectors import Detector
from dracones.export import export, refusal
from dracones.export.deployed import Deployed
from dracones.export.proof import expected
from dracones.runtime.agreement import disagreement

BATCHES = (1, 7, SCORED)
TIMED = (1, 32)


def seconds(work: Callable[[], Any], other: Callable[[], Any], least: float = 0.5) -> tuple[float, float]:
    """CPU seconds of a call of each, taken in turns: the least of several, after one that warms up."""
    found: list[list[float]] = [[], []]
    begun = None
    while begun is None or ((len(found[0]) < 3 or time.process_time() - begun < least) and len(found[0]) < 20):
        for times, each in zip(found, (work, other), strict=True):
            start = time.process_time()
            each()
            if begun is not None:
                times.append(time.process_time() - start)
        begun = begun or time.process_time()
    return min(found[0]), min(found[1])


def openvino_differences(detector: Detector, wanted: dict[int, Any], images: Any, folder: Path) -> dict[str, Any]:
    """The same of the pair for OpenVINO, for images of one size, or why it is not written."""
    try:
        made = export(detector, folder / "line.xml", image_size=images.shape[2:])
    except ValueError as error:
        return {"openvino": str(error).splitlines()[0]}
    return differences(runtime.load(made.path), wanted, images, "openvino_")


def differences(line: runtime.ExportedDetector, wanted: dict[int, Any], images: Any, kind: str) -> dict[str, Any]:
    """Largest relative difference and share of equal verdicts for each batch."""
    calibration = np.array(line.facts["calibration"]["scores"], dtype=np.float32)
    row = {}
    for count, want in wanted.items():
        found = line.answer(images[:count])
        row[f"{kind or 'difference_'}{count}"] = disagreement(found, want, calibration)[0]
        row[f"{kind}verdicts_{count}"] = float((found["is_anomaly"] == want["is_anomaly"]).mean())
    return row


def entry(detector: Detector, images: Any, folder: Path) -> dict[str, Any]:
    """One method's figures."""
    started = time.process_time()
    made = export(detector, folder / "line.onnx")
    row: dict[str, Any] = {
        "megabytes": made.path.stat().st_size / 1e6,
        "export_cpu_seconds": time.process_time() - started,
        "export_seconds": made.seconds,
    }
    line = runtime.load(made.path)
    deployed = Deployed(detector.pipeline, with_map=detector.gives_maps).eval()
    wanted = {count: expected(detector, deployed, images[:count]) for count in BATCHES}
    row |= differences(line, wanted, images, "")
    row |= openvino_differences(detector, wanted, images, folder)
    for count in TIMED:
        ways = partial(expected, detector, deployed, images[:count]), partial(line.answer, images[:count])
        eager, exported = seconds(*ways)
        row |= {f"eager_ms_{count}": 1e3 * eager, f"line_ms_{count}": 1e3 * exported}
        row[f"speed_{count}"] = eager / exported
    return row


def main() -> None:
    """Run what is named, write the record and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--models", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    rows: dict[str, Any] = records.read(arguments.output)["rows"] if arguments.output.exists() else {}
    for name in arguments.only:
        detector = fitted(name, arguments.models)
        images, _ = images_of(MODELS[name].family, "score")
        reason = refusal(detector)
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = {"refused": reason} if reason else entry(detector, images, Path(folder))
            except ValueError as error:
                row = {"refused": str(error)}
        rows[name] = {**row, "commit": provenance.commit()}
        print(name, rows[name], flush=True)
        records.write(arguments.output, {**provenance.provenance(), "rows": dict(sorted(rows.items()))}, digits=3)
    PAGE.write_text(written(PAGE.read_text(), records.read(arguments.output)))


if __name__ == "__main__":
    main()
