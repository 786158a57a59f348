"""Small fitted detectors of every kind, and what a loaded copy of one must give."""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dracones

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from feature_case import SMALL, normals
from tiny_classifier import TinyNet
from tiny_classifier import images as classified


@dataclass(frozen=True)
class Subject:
    """A saved detector, images to score, and the scores that the whole file gives.

    Attributes:
        path: the file.
        images: what is scored to see whether a copy is the same.
        runtime: gives the objects that no file holds.
    """

    name: str
    path: Path
    images: torch.Tensor
    runtime: Callable[[], dict[str, Any]]
    scores: np.ndarray
    p_values: np.ndarray | None

    def load(self, path: Path) -> Any:
        """A copy of the file as a user would load it."""
        return dracones.load(path, **self.runtime())


_PIXELS = {"glow": {"density": {"hidden": 4, "steps": 1}}, "vae": {"density": {"width": 4, "latents": 2, "stages": 1}}}
_FEATURES: dict[str, dict[str, Any]] = {
    "fastflow": {"steps": 2, "epochs": 1, "batch_size": 8},
    "embedding_flow": {"levels": (1,), "epochs": 1, "couplings": 2, "hidden": 8, "batch_size": 8},
    "patchcore": {"memory_share": 0.02},
    "padim": {"dimensions": 8},
}
_GUARDS = ("msp", "knn", "mahalanobis", "vim", "odin")


def make(folder: Path, names: tuple[str, ...] | None = None) -> list[Subject]:
    """Fit and save one detector of each kind (seconds)."""
    found = []
    for name in names or (*_PIXELS, *_FEATURES, *_GUARDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(_subject(name, folder))
    return found


def _subject(name: str, folder: Path) -> Subject:
    options: dict[str, Any] = {"false_alarm_rate": 0.2}
    runtime: Callable[[], dict[str, Any]] = dict
    if name in _PIXELS:
        images = (torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
        fitting: Any = images
        options |= {"epochs": 1, "rule": "typicality", **_PIXELS[name]}
    elif name in _FEATURES:
        images = fitting = normals(60)
        options |= {**SMALL, **_FEATURES[name]}
    else:
        runtime = lambda: {"classifier": TinyNet()}  # noqa: E731
        options |= runtime()
        fitting = classified(60)
        images = fitting if isinstance(fitting, torch.Tensor) else fitting[0]
    detector = dracones.create(name, **options)
    labels = None if name in _PIXELS or name in _FEATURES else torch.arange(len(images)) % 4
    detector.fit(fitting, labels=labels)
    path = detector.save(folder / f"{name}.safetensors")
    probe = images[:4]
    seen = detector.predict(probe, maps=False)
    return Subject(name, path, probe, runtime, seen.scores, seen.p_values)
