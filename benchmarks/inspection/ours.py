"""The other side of the race: fit and score through `dracones`, clocks and sizes as one line of JSON.

python benchmarks/inspection/ours.py METHOD ROOT WEIGHTS EPOCHS THREADS FOLDER PRECISION
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

# What the peer's implementation does, where our default is another.
OF_THE_PEER: dict[str, dict[str, Any]] = {
    "fastflow": {"normalisation": "image", "padding": "zeros", "heat": "probability", "schedule": "constant"},
    "csflow": {"hidden": 1024},
}


def watched_backbone() -> list[float]:
    """CPU seconds spent in backbones from now on, kept up to date in a list of one."""
    from dracones.features import FeatureExtractor

    spent, original = [0.0], FeatureExtractor.forward

    def forward(self: FeatureExtractor, images: torch.Tensor, *, gradient: bool = False) -> tuple[torch.Tensor, ...]:
        started = time.process_time()
        maps = original(self, images, gradient=gradient)
        spent[0] += time.process_time() - started
        return maps

    FeatureExtractor.forward = forward  # type: ignore[method-assign]
    return spent


def main(method: str, root: str, weights: str, epochs: int, threads: int, folder: str, precision: str) -> None:
    """A cold start: the feature cache is empty, and filling it counts."""
    torch.set_num_threads(threads)
    os.environ["DRACONES_CACHE"] = str(Path(folder) / "cache")
    import timm  # noqa: F401  the peer's libraries too are imported before its clock starts

    import dracones
    from dracones.images import MvtecLayout

    backbone = watched_backbone()
    layout = MvtecLayout(root)
    detector = dracones.create(
        method,
        backbone="resnet18",
        weights=weights,
        levels={"fastflow": (1, 2, 3), "cflow": (2, 3), "csflow": (3,)}[method],
        size=(256, 256),
        batch_size=16 if method == "csflow" else 32,
        validation_share=0.0,
        calibration_share=0.0,
        precision=precision,
        **OF_THE_PEER.get(method, {}),
        epochs=epochs,
    )
    started_cpu = time.process_time()
    wall, cpu = time.monotonic(), time.process_time()
    detector.fit(layout.train)
    fit_wall, fit_cpu, fit_backbone = time.monotonic() - wall, time.process_time() - cpu, backbone[0]
    test = layout.test
    wall, cpu = time.monotonic(), time.process_time()
    prediction = detector.predict(test, batch_size=8)
    score_wall, score_cpu, score_backbone = (
        time.monotonic() - wall,
        time.process_time() - cpu,
        backbone[0] - fit_backbone,
    )
    size = detector.save(Path(folder) / "ours.safetensors").stat().st_size / 1e6
    found = {
        "fit_seconds": fit_wall,
        "fit_cpu_seconds": fit_cpu,
        "score_seconds": score_wall,
        "score_cpu_seconds": score_cpu,
        "start_cpu_seconds": started_cpu,
        "fit_backbone_cpu_seconds": fit_backbone,
        "score_backbone_cpu_seconds": score_backbone,
        "images": len(prediction),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "file_megabytes": size,
        "weights_only_megabytes": size,
        "scores": prediction.scores.tolist(),
        "labels": test.labels.tolist(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:8])
