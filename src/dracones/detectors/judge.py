"""The verdict as a graph: p-values and alarms from scores, for the pipeline and whatever it is exported to."""

import torch
from torch import Tensor, nn

from dracones.calibration import Conformal


class Judge(nn.Module):
    """Scores ``[B]`` to p-values and alarms; the same arithmetic as `Conformal`, on tensors.

    ``p = (1 + #{calibration >= score}) / (n + 1)``; an alarm is a score strictly above the threshold. What is not
    known (no calibration, no threshold) is ``None``.

    Args:
        calibration: scores of normal images.
        threshold: score above which an image is anomalous.

    Example:
        >>> judge = Judge(Conformal().fit(range(1, 100)), 95.0)
        >>> [answer.tolist() for answer in judge(torch.tensor([50.0, 96.0]))]
        [[0.51, 0.05], [False, True]]
    """

    scores: Tensor
    threshold: Tensor

    def __init__(self, calibration: Conformal, threshold: float | None) -> None:
        super().__init__()
        # Calibration scores came from float32, and so hold in it exactly.
        self.register_buffer("scores", torch.as_tensor(calibration.scores.copy(), dtype=torch.float32))
        self.register_buffer("threshold", torch.tensor([] if threshold is None else [threshold], dtype=torch.float32))

    def forward(self, scores: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """p-values ``[B]`` float64 and alarms ``[B]``."""
        count = self.scores.shape[0]
        p_values = None
        if count:
            at_least = (self.scores[None, :] >= scores[:, None]).sum(dim=1)
            p_values = (1 + at_least).double() / (count + 1)
        return p_values, scores > self.threshold[0] if self.threshold.shape[0] else None
