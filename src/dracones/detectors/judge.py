"""The verdict as a graph: p-values and alarms from scores, for the pipeline and whatever it is exported to."""

import torch
from torch import Tensor, nn

from dracones.calibration import Conformal, Groups


class Judge(nn.Module):
    """Scores ``[B]`` to p-values and alarms; the same arithmetic as `Conformal`, on tensors.

    ``p = (1 + #{calibration >= score}) / (n + 1)``; an alarm is a score strictly above the threshold. What is not
    known (no calibration, no threshold, no group where each group has its own) is ``None``.

    Args:
        calibration: scores of normal images.
        threshold: score above which an image is anomalous.
        groups: each with its own calibration and threshold, in place of the two.

    Example:
        >>> judge = Judge(Conformal().fit(range(1, 100)), 95.0)
        >>> [answer.tolist() for answer in judge(torch.tensor([50.0, 96.0]))]
        [[0.51, 0.05], [False, True]]
    """

    scores: Tensor
    threshold: Tensor
    owners: Tensor

    def __init__(self, calibration: Conformal, threshold: float | None, groups: Groups | None = None) -> None:
        super().__init__()
        limits = [] if threshold is None else [threshold]
        if groups is not None:
            limits = [groups.thresholds[name] for name in groups.names] if groups.thresholds else []
        self.grouped = groups is not None
        # Calibration scores came from float32, and so hold in it exactly.
        self.register_buffer("scores", torch.as_tensor(calibration.scores.copy(), dtype=torch.float32))
        self.register_buffer("threshold", torch.tensor(limits, dtype=torch.float32))
        owners = torch.empty(0, dtype=torch.int64) if groups is None else torch.as_tensor(groups.owners())
        self.register_buffer("owners", owners)

    def forward(self, scores: Tensor, groups: Tensor | None = None) -> tuple[Tensor | None, Tensor | None]:
        """p-values ``[B]`` float64 and alarms ``[B]``; ``groups`` ``[B]`` is each image's place among the groups."""
        if self.grouped:
            return (None, None) if groups is None else self._by_group(scores, groups)
        count = self.scores.shape[0]
        p_values = None
        if count:
            at_least = (self.scores[None, :] >= scores[:, None]).sum(dim=1)
            p_values = (1 + at_least).double() / (count + 1)
        return p_values, scores > self.threshold[0] if self.threshold.shape[0] else None

    def _by_group(self, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor | None]:
        own = self.owners[None, :] == groups[:, None]
        at_least = ((self.scores[None, :] >= scores[:, None]) & own).sum(dim=1)
        p_values = (1 + at_least).double() / (own.sum(dim=1) + 1)
        return p_values, scores > self.threshold[groups] if self.threshold.shape[0] else None
