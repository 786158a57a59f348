"""How ODIN's temperature and step were chosen: three protocols, and a record that a saved model carries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dracones.metrics import auroc, fpr_at_tpr

TEMPERATURES = (1.0, 10.0, 100.0, 1000.0)
# The paper's 21 values from 0 to 0.004.
EPSILONS = tuple(round(0.0002 * i, 4) for i in range(21))

Protocol = Literal["fixed", "in_distribution", "validation"]
Grid = Mapping[tuple[float, float], NDArray[Any]]


@dataclass(frozen=True)
class Tuning:
    """Which T and epsilon, and what they were chosen on.

    Attributes:
        protocol: ``fixed``: given by hand; ``in_distribution``: normal images alone; ``validation``: a set with
            anomalies.
        temperature: T.
        epsilon: step in units of [0, 1] pixels.
        normal_images: how many were looked at.
        anomalous_images: likewise.
        validation_set: its name, where anomalous images were looked at.
    """

    protocol: Protocol
    temperature: float
    epsilon: float
    normal_images: int = 0
    anomalous_images: int = 0
    validation_set: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For the file's header."""
        return asdict(self)

    def __str__(self) -> str:
        chosen = {
            "fixed": "given by hand",
            "in_distribution": f"chosen on {self.normal_images} normal images, no anomalous one",
            "validation": f"chosen on {self.validation_set!r} ({self.normal_images} normal, "
            f"{self.anomalous_images} anomalous images)",
        }[self.protocol]
        return f"T={self.temperature:g}, epsilon={self.epsilon:g}: {chosen}"


def choose_in_distribution(scores: Grid) -> Tuning:
    """The epsilon with the largest mean maximum softmax (smallest mean score) on normal images; ties to the smaller.

    Reference: Hsu et al., CVPR 2020, eq. 11.

    >>> print(choose_in_distribution({(1000.0, 0.0): np.array([0.9]), (1000.0, 0.002): np.array([0.8])}))
    T=1000, epsilon=0.002: chosen on 1 normal images, no anomalous one
    """
    temperature, epsilon = min(scores, key=lambda key: (float(np.mean(scores[key], dtype=np.float64)), key[1]))
    return Tuning("in_distribution", temperature, epsilon, normal_images=len(scores[temperature, epsilon]))


def choose_by_validation(normal: Grid, anomalous: Grid, *, name: str) -> Tuning:
    """The pair with the smallest FPR at 95 % TPR; ties to the larger AUROC, then the smaller step.

    >>> inside = {(1.0, 0.0): np.array([0.1, 0.9]), (1.0, 0.001): np.array([0.1, 0.2])}
    >>> outside = {(1.0, 0.0): np.array([0.5]), (1.0, 0.001): np.array([0.5])}
    >>> choose_by_validation(inside, outside, name="holes").epsilon
    0.001
    """

    def merit(key: tuple[float, float]) -> tuple[float, float, float, float]:
        scores = np.concatenate([normal[key], anomalous[key]])
        labels = np.repeat([0, 1], [len(normal[key]), len(anomalous[key])])
        return fpr_at_tpr(scores, labels), -auroc(scores, labels), key[1], key[0]

    best = min(normal, key=merit)
    return Tuning("validation", *best, len(normal[best]), len(anomalous[best]), name)
