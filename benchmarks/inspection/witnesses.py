"""What each witness of an ensemble says of the test images, kept while the ensemble scores them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dracones.detectors import Detector
from dracones.methods.ensemble import Ensemble
from dracones.methods.witness_weights import Standard, loudness
from dracones.metrics import auroc


class Heard:
    """Listens to the witnesses of a detector from now on; hears nothing where the method is no ensemble."""

    def __init__(self, detector: Detector) -> None:
        self.method = detector.method
        self.found: list[Tensor] = []
        if isinstance(self.method, Ensemble):
            answers = self.method._answers

            def listening(maps: tuple[Tensor, ...], size: tuple[int, int]) -> Any:
                given = answers(maps, size)
                self.found.append(torch.stack([answer.image.float() for answer in given], dim=1).cpu())
                return given

            self.method._answers = listening  # type: ignore[method-assign]

    def record(self, scores: list[float], labels: np.ndarray) -> dict[str, Any]:
        """AUROC and scores of each witness alone, their weights, and what equal weights would have given.

        Raises:
            ValueError: what was heard does not add up to the ensemble's scores.
        """
        if not isinstance(self.method, Ensemble):
            return {}
        method = self.method
        standard = Standard(method.centre, method.spread)(torch.cat(self.found))
        if not np.allclose((loudness(standard) * method.weights).sum(dim=1), scores, rtol=1e-3, atol=1e-3):
            raise ValueError("the witnesses heard do not add up to the scores: were images scored out of order?")
        alone = {
            name: {
                "weight": round(float(method.weights[i]), 4),
                "image_auroc": round(float(auroc(standard[:, i].numpy(), labels)), 4),
                "scores": [round(value, 4) for value in standard[:, i].tolist()],
            }
            for i, name in enumerate(method.names)
        }
        equal = loudness(standard).mean(dim=1).numpy()
        return {"witnesses": alone, "image_auroc_of_equal_weights": round(float(auroc(equal, labels)), 4)}
