"""The false-alarm promise where it used to break: thresholds set on images that were learnt from, and copies.

    DRACONES_TEST_DATA=... python -m benchmarks.robustness.promise -o benchmarks/robustness/results/promise.json

Guards of a CIFAR-10 network. For each: what `calibrate` says to the fit's own images, what would have come of a
threshold from their scores (as before they were refused), and what comes of images that nobody learnt from. Then
pictures that are there fifteen times each, in one folder, split by the fit itself.
"""

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dracones
from benchmarks.classifiers.networks import MEAN, STD
from benchmarks.classifiers.sets import Part, load_normal, load_training
from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write
from dracones.calibration import Conformal
from dracones.images import open_images

GUARDS: dict[str, dict[str, Any]] = {"mahalanobis": {}, "knn": {}, "vim": {}}
_RATE, _COPIES, _COPIED, _COPIES_RATE = 0.05, 15, 40, 0.2


def measure(name: str, options: dict[str, Any], training: tuple[Any, Any], fresh: Part) -> dict[str, Any]:
    """Realised false alarms on fresh test images, three ways."""
    learnt, labels = training
    guard = dracones.create(name, calibration_share=0.0, **options, **GUARDS[name])
    guard.fit(open_images(learnt, labels=labels, layout="NHWC"))
    try:
        guard.calibrate(open_images(learnt[:500], layout="NHWC"), false_alarm_rate=_RATE)
        said = "accepted"
    except ValueError as error:
        said = f"refused: {error}"
    scores = guard.predict(open_images(fresh.test, layout="NHWC")).scores
    leaked = Conformal().fit(guard.predict(open_images(learnt[:500], layout="NHWC")).scores.tolist())
    guard.calibrate(open_images(fresh.tuning, layout="NHWC"), false_alarm_rate=_RATE)
    return {
        "promised": _RATE,
        "fresh_images": len(scores),
        "learnt images now": said,
        "alarms, had it been accepted": float((scores > leaked.threshold(_RATE)).mean()),
        "alarms, calibrated on other images": float((scores > guard.threshold).mean()),
    }


def copies(options: dict[str, Any], fresh: Part) -> dict[str, Any]:
    """Forty pictures fifteen times each: what the fit says, and what its promise is worth."""
    many = np.concatenate([fresh.tuning[:_COPIED]] * _COPIES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        guard = dracones.create("knn", k=1, calibration_share=0.3, false_alarm_rate=_COPIES_RATE, **options)
        guard.fit(open_images(many, layout="NHWC"))
    flags = guard.predict(open_images(fresh.test, layout="NHWC")).is_anomaly
    return {
        "pictures": _COPIED,
        "copies": _COPIES,
        "promised": _COPIES_RATE,
        "said": [str(warning.message) for warning in said],
        "calibration_images": len(guard.calibration),
        "alarms": None if flags is None else float(flags.mean()),
    }


def main() -> None:
    """Measure, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DRACONES_TEST_DATA"))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record, watch = provenance(), Stopwatch()
    weights = arguments.data / "classifiers" / "cifar10_resnet20_akamaster.safetensors"
    options = {
        "classifier": str(Path(__file__).parents[1] / "classifiers" / "networks.py") + ":resnet20",
        "classifier_weights": str(weights),
        "mean": MEAN,
        "std": STD,
    }
    images, labels = load_training(arguments.data)  # sorted by class
    chosen = np.random.default_rng(0).permutation(len(images))[: arguments.count]
    training, fresh = (images[chosen], labels[chosen]), load_normal(arguments.data, tuning=500, count=1000)
    record |= {
        "command": f"python -m benchmarks.robustness.promise --count {arguments.count}",
        "guards": {name: measure(name, options, training, fresh) for name in GUARDS},
        "copies": copies(options, fresh),
        **watch.read(),
    }
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
