"""The other side of the race: fit and score through `dracones`, clocks and sizes as one line of JSON.

python benchmarks/inspection/ours.py METHOD ROOT WEIGHTS EPOCHS THREADS FOLDER PRECISION
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import torch


def main(method: str, root: str, weights: str, epochs: int, threads: int, folder: str, precision: str) -> None:
    """A cold start: the feature cache is empty, and filling it counts."""
    torch.set_num_threads(threads)
    os.environ["DRACONES_CACHE"] = str(Path(folder) / "cache")
    import dracones
    from dracones.data import MvtecLayout

    levels = (1, 2, 3) if method == "fastflow" else (2, 3)
    layout = MvtecLayout(root)
    detector = dracones.create(
        method,
        backbone="resnet18",
        weights=weights,
        levels=levels,
        size=(256, 256),
        validation_share=0.0,
        calibration_share=0.0,
        precision=precision,
        epochs=epochs,
    )
    wall, cpu = time.monotonic(), time.process_time()
    detector.fit(layout.train)
    fit_wall, fit_cpu = time.monotonic() - wall, time.process_time() - cpu
    test = layout.test
    wall, cpu = time.monotonic(), time.process_time()
    prediction = detector.predict(test, batch_size=8)
    score_wall, score_cpu = time.monotonic() - wall, time.process_time() - cpu
    size = detector.save(Path(folder) / "ours.safetensors").stat().st_size / 1e6
    found = {
        "fit_seconds": fit_wall,
        "fit_cpu_seconds": fit_cpu,
        "score_seconds": score_wall,
        "score_cpu_seconds": score_cpu,
        "images": len(prediction),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "file_megabytes": size,
        "weights_only_megabytes": size,
        "scores": prediction.scores.tolist(),
        "labels": test.labels.tolist(),
    }
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:8])
