"""The other side of the race: fit and score through `dracones`, clocks and sizes as one line of JSON.

python benchmarks/inspection/ours.py METHOD ROOT WEIGHTS EPOCHS THREADS FOLDER PRECISION [default]

With `default` in our own form, as whoever names no option gets it, in place of the peer's.
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

    def forward(self: FeatureExtractor, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        started = time.process_time()
        maps = original(self, images)
        spent[0] += time.process_time() - started
        return maps

    FeatureExtractor.forward = forward  # type: ignore[method-assign]
    return spent


OF_THE_RACE: dict[str, dict[str, Any]] = {
    "fastflow": {"levels": (1, 2, 3), "batch_size": 32},
    "cflow": {"levels": (2, 3), "batch_size": 32},
    "csflow": {"levels": (3,), "batch_size": 16},
}


def options(method: str, epochs: int, form: str) -> dict[str, Any]:
    """What the method is made with; the ensemble trains nothing, and holds out what weighs its witnesses."""
    if method == "ensemble":
        return {}
    own = {} if form == "default" else OF_THE_PEER.get(method, {})
    return {**OF_THE_RACE[method], **own, "epochs": epochs, "validation_share": 0.0}


def main(
    method: str, root: str, weights: str, epochs: int, threads: int, folder: str, precision: str, form: str = ""
) -> None:
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
        size=(256, 256),
        calibration_share=0.0,
        precision=precision,
        **options(method, epochs, form),
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
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:9])
