"""Exported files against the detectors they came from: difference, verdicts, CPU seconds, size, seconds to export.

python -m benchmarks.export.race -o benchmarks/export/race.json
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dracones
from benchmarks import provenance, records
from dracones import runtime
from dracones.export import export
from dracones.images import open_images
from dracones.runtime.agreement import disagreement

BATCHES = (1, 7, 64)
TINY = {"training": {"epochs": 1}}
LIKELIHOODS: dict[str, tuple[str, dict[str, Any]]] = {
    "glow, likelihood": ("glow", {"rule": "likelihood"}),
    "glow, auto": ("glow", {}),
    "realnvp, likelihood": ("realnvp", {"rule": "likelihood"}),
    "vae, likelihood": ("vae", {"rule": "likelihood"}),
    "pixelcnn, likelihood": ("pixelcnn", {"rule": "likelihood"}),
}
FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "padim": ("padim", {"dimensions": 60}),
    "patchcore": ("patchcore", {"memory_share": 0.05}),
    "fastflow": ("fastflow", {}),
    "cflow": ("cflow", {}),
    "msflow": ("msflow", {}),
    "embedding_flow": ("embedding_flow", {}),
}

_CIFAR = ("cifar10/cifar10_train_lossless_20k.npz", "cifar10/cifar10_test_lossless.npz")


def images_of(data: Path, family: str) -> tuple[np.ndarray, np.ndarray]:
    """Real images ``[N, C, H, W]`` uint8 to fit on, and others to score."""
    likelihood = family == "likelihood"
    count = 600 if likelihood else 120
    files = ("FashionMNIST:train", "FashionMNIST:test") if likelihood else _CIFAR
    sets = []
    for file, size in zip(files, (count, max(BATCHES)), strict=True):
        found = open_images(str(data / file)).subset(range(size))
        sets.append(np.stack([np.asarray(found.read_native(i)) for i in range(size)]))
    return sets[0], sets[1]


def seconds(work: Callable[[], Any], least: float = 1.0) -> float:
    """CPU seconds of one call: the least of several, after one that warms up."""
    work()
    found, begun = [], time.process_time()
    while len(found) < 3 or time.process_time() - begun < least:
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
        if len(found) >= 20:
            break
    return min(found)


def openvino_difference(path: Path, detector: Any, images: np.ndarray, line: runtime.ExportedDetector) -> Any:
    """Largest relative difference in OpenVINO in float32, or what it raised."""
    import openvino

    try:
        compiled = openvino.compile_model(openvino.convert_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        arrays = [images, *line._host(images)]
        answers = compiled(arrays)
        score = next(iter(answers.values()))  # the first output
        return disagreement({"score": score}, {"score": expected(detector, images)["score"]}, np.empty(0))[0]
    except Exception as error:
        return str(error).splitlines()[0][:80]


def expected(detector: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the detector says, batch as a whole."""
    from dracones.export.deployed import Deployed
    from dracones.export.proof import expected as answer

    return answer(detector, Deployed(detector.pipeline, with_map=detector.gives_maps), images)


def entry(kind: str, options: dict[str, Any], fit: np.ndarray, score: np.ndarray, folder: Path) -> dict[str, Any]:
    """One method's figures."""
    detector = dracones.create(kind, calibration_share=0.3, false_alarm_rate=0.1, **options)
    detector.fit(torch.from_numpy(fit))
    made = export(detector, folder / "line.onnx")
    line = runtime.load(made.path)
    calibration = detector.calibration.scores.astype(np.float32)
    row: dict[str, Any] = {"megabytes": made.path.stat().st_size / 1e6, "export_seconds": made.seconds}
    for count in BATCHES:
        images = score[:count]
        want, found = expected(detector, images), line.answer(images)
        row[f"difference_{count}"] = disagreement(found, want, calibration)[0]
        row[f"verdicts_{count}"] = float((found["is_anomaly"] == want["is_anomaly"]).mean())
        row[f"openvino_{count}"] = openvino_difference(made.path, detector, images, line)
    for count in (1, 32):
        images = score[:count]
        row[f"eager_ms_{count}"] = 1e3 * seconds(lambda images=images: expected(detector, images))
        row[f"line_ms_{count}"] = 1e3 * seconds(lambda images=images: line.answer(images))
        row[f"speed_{count}"] = row[f"eager_ms_{count}"] / row[f"line_ms_{count}"]
    return row


def main() -> None:
    """Run what is named and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[*LIKELIHOODS, *FEATURES])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    data = Path(os.environ["DRACONES_TEST_DATA"])
    weights = data / "backbones" / "resnet18_tv_layer123_fp16.safetensors"
    # A run of some methods leaves the others' rows; each says its own commit.
    rows: dict[str, Any] = records.read(arguments.output)["rows"] if arguments.output.exists() else {}
    for name in arguments.only:
        family = "likelihood" if name in LIKELIHOODS else "features"
        kind, options = (LIKELIHOODS | FEATURES)[name]
        if family == "features":
            options = {"backbone": "resnet18", "weights": str(weights), "size": (128, 128), "cache": False, **options}
        if kind not in ("padim", "patchcore"):
            options = {**options, **TINY}
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = entry(kind, options, *images_of(data, family), Path(folder))
                rows[name] = {**found, "commit": provenance.commit()}
            except ValueError as error:
                rows[name] = {"refused": str(error)}
        print(name, rows[name], flush=True)
        records.write(arguments.output, {**provenance.provenance(), "rows": rows}, digits=3)


if __name__ == "__main__":
    main()
