"""A classifier and its guard as one module for serving."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dracones.methods.guards.guard import Guard
from dracones.methods.guards.identity import check_fingerprint
from dracones.methods.guards.outputs import check_finite


class GuardedAnswer(NamedTuple):
    """What a guarded classifier returns.

    Attributes:
        logits: ``[B, K]``, as the classifier gave them.
        scores: ``[B]``, larger = more anomalous.
        is_anomaly: ``[B]`` booleans, or ``None`` while the guard has no threshold.
    """

    logits: Tensor
    scores: Tensor
    is_anomaly: Tensor | None


class GuardedClassifier(nn.Module):
    """Logits and out-of-distribution scores in one pass; ODIN alone takes its second pass and a backward.

    Takes images ``[B, C, H, W]`` in [0, 1]: where the guard has mean and std, it normalises. The classifier is a
    submodule here, so ``to``, ``half`` and ``state_dict`` reach it.

    Args:
        guard: a fitted guard.
        threshold: score above which an image is anomalous, where one was calibrated.
        model: the classifier to serve, with the weights the guard was fitted on; the guard's own if not given.

    Raises:
        ValueError: not fitted, or a model with other weights.
    """

    def __init__(self, guard: Guard, threshold: float | None = None, model: nn.Module | None = None) -> None:
        super().__init__()
        if guard.classifier_fingerprint is None:
            raise ValueError(f"this {guard.info.name} is not fitted; call fit(normal_images) before wrap")
        probe = guard.probe
        if model is not None and model is not guard.classifier:
            check_fingerprint(model, guard.classifier_fingerprint, type(guard.classifier).__name__)
            probe = guard.probe_of(model)
            if guard.probe.inspected and not probe.accelerate:
                probe.know(guard.probe.found)
        self.guard = guard
        self.threshold = threshold
        self.probe = probe

    def forward(self, images: Tensor) -> GuardedAnswer:
        """Logits, scores and, once calibrated, verdicts."""
        with torch.no_grad():
            logits, scores = self.guard.logits_and_scores(images, self.probe)
        if not torch.compiler.is_compiling() and math.isnan(float(scores.sum())):
            check_finite(logits)
        return GuardedAnswer(logits, scores, None if self.threshold is None else scores > self.threshold)
