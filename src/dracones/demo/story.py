"""The demo's story in five steps, each a few lines of the public API."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import dracones
from dracones.demo.photographs import SIDE, DemoImages
from dracones.detectors import Detector, Prediction
from dracones.methods.likelihood import Likelihood
from dracones.metrics import auroc, evaluate_maps
from dracones.rules import Rule, create_for, gather
from dracones.training import Progress

RULES = ("likelihood", "latent", "volume", "typicality", "complexity", "dose", "auto")
FALSE_ALARM_RATE = 0.05
_STEPS = 120
_OVERLAP = 24


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        detector: the fitted, calibrated detector.
        scores: rule → set → scores ``[N]``; the set ``"test"`` is held-out normal images.
        auroc: set → rule → AUROC, the set against held-out normal images.
        realised: share of held-out normal images above the threshold, promised to be `FALSE_ALARM_RATE`.
        prediction: the calibrated detector on held-out normal images.
        maps: heat maps of the scenes ``[N, H, W]``.
        pixel: metrics of the heat maps against the scenes' masks.
        seconds: wall-clock time of each step.
    """

    detector: Detector
    scores: dict[str, dict[str, NDArray[np.float64]]]
    auroc: dict[str, dict[str, float]]
    realised: float
    prediction: Prediction
    maps: NDArray[np.float32]
    pixel: dict[str, dict[str, float]]
    seconds: dict[str, float]


def tell_story(images: DemoImages, *, seed: int = 0, progress: Progress | None = None) -> DemoResult:
    """Learn a photograph, be fooled by others, repair, calibrate, and point at what does not belong."""
    clock = _Clock()
    detector = _learn(images, seed, progress)
    clock.lap("learn")
    scores = _score_by_rule(detector, images)
    aurocs = {name: _aurocs(scores, name) for name in images.others}
    clock.lap("compare rules")
    detector.calibrate(images.calibration, false_alarm_rate=FALSE_ALARM_RATE, progress=progress)
    prediction = detector.predict(images.test, batch_size=128)
    clock.lap("calibrate")
    maps = _point(detector, images, progress)
    pixel = evaluate_maps(maps, images.scenes.masks.numpy())
    clock.lap("point")
    flags = cast("NDArray[np.bool_]", prediction.is_anomaly)  # calibrated above
    return DemoResult(detector, scores, aurocs, float(flags.mean()), prediction, maps, pixel, clock.laps)


def _learn(images: DemoImages, seed: int, progress: Progress | None) -> Detector:
    detector = dracones.create(
        "glow",
        seed=seed,
        density={"steps": 3, "hidden": 48},
        training={
            "max_steps": _STEPS,
            "epochs": None,
            "batch_size": 48,
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "clip_norm": 50.0,
            "patience": None,
        },
        validation_share=0.2,
        calibration_share=0.0,
    )
    return detector.fit(images.train, progress=progress)


def _score_by_rule(detector: Detector, images: DemoImages) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Every rule on the one density, fitted on the same normal images; statistics are gathered once."""
    density = cast(Likelihood, detector.method).density
    rules: dict[str, Rule] = {name: create_for(name, density) for name in RULES}
    names = sorted({statistic for rule in rules.values() for statistic in rule.requires})
    normal = gather(density, images.train[: len(images.test)], names)
    for rule in rules.values():
        rule.fit(normal)
    sets: Mapping[str, Tensor] = {"test": images.test, **images.others}
    statistics = {name: gather(density, tensor, names) for name, tensor in sets.items()}
    return {
        name: {which: rule.score(found).numpy() for which, found in statistics.items()} for name, rule in rules.items()
    }


def _aurocs(scores: dict[str, dict[str, NDArray[np.float64]]], other: str) -> dict[str, float]:
    found = {}
    for rule, by_set in scores.items():
        both = np.concatenate([by_set["test"], by_set[other]])
        labels = np.repeat([0, 1], [len(by_set["test"]), len(by_set[other])])
        found[rule] = float(auroc(both, labels))
    return found


def _point(detector: Detector, images: DemoImages, progress: Progress | None) -> NDArray[np.float32]:
    """Heat maps of scenes larger than what was learnt: the detector slides over them in overlapping tiles."""
    scenes = detector.tiled((SIDE, SIDE), _OVERLAP).predict(images.scenes.images, batch_size=128, progress=progress)
    return np.stack(scenes.maps or [])


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, what: str) -> None:
        now = time.monotonic()
        self.laps[what], self._last = round(now - self._last, 2), now


def summary(result: DemoResult) -> dict[str, Any]:
    """The numbers as plain JSON-able values."""
    return {
        "auroc": result.auroc,
        "false_alarm_rate": {"promised": FALSE_ALARM_RATE, "realised": result.realised},
        "pixel_auroc": result.pixel["auroc"]["value"],
        "pixel": result.pixel,
    }


def worst_and_repaired(result: DemoResult) -> tuple[str, float, float]:
    """The set that fools plain likelihood most: its name, AUROC by likelihood, AUROC by the rule `auto`."""
    name = min(result.auroc, key=lambda other: result.auroc[other]["likelihood"])
    return name, result.auroc[name]["likelihood"], result.auroc[name]["auto"]
