"""How far out a value lies in a sample of normal values: the common currency in which statistics are merged."""

import torch
from torch import Tensor

from dracones.rules.rule import Rule


class EmpiricalTail(Rule):
    """Conformal p-value of one number, from a sorted sample of normal ones, refined beyond the sample.

    Inside the sample p is the conformal (1 + #{calibration >= x}) / (n + 1), interpolated linearly between
    sample points so that order is never lost. Beyond the largest sample value p would stop at 1/(n+1) and all
    far values would tie; there an exponential tail with the mean excess of the upper tenth goes on, so that
    log p falls linearly. `log_p(x, upper)` gives log p in nats.

    Reference: Vovk, Gammerman and Shafer 2005, chapter 2 (conformal p-values); the tail: Pickands 1975.
    """

    requires = ("value",)
    needs_fit = True
    sample: Tensor
    scale: Tensor

    def __init__(self, *, upper: bool = True) -> None:
        super().__init__()
        self.upper = upper
        self.fitted_buffers("sample", "scale")

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        values = statistics["value"]
        ordered = (values if self.upper else -values).sort().values
        self.sample = ordered
        top = ordered[int(0.9 * (len(ordered) - 1)) :]
        spread = ordered.std() if len(ordered) > 1 else ordered.new_tensor(1.0)
        # a tail flatter than a thousandth of the spread is rounding, not a tail
        self.scale = torch.maximum((top - top[0]).mean(), 1e-3 * spread + 1e-12 * (1 + ordered.abs().max()))

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return -self.log_p(statistics["value"])

    def log_p(self, values: Tensor) -> Tensor:
        """Log of the one-sided p-value, nats [B]; very small = far beyond every normal image."""
        x = values if self.upper else -values
        count = len(self.sample)
        above = torch.searchsorted(self.sample, x.contiguous())  # sample values strictly below x
        left = self.sample[(above - 1).clamp(0, count - 1)]
        right = self.sample[above.clamp(0, count - 1)]
        width = (right - left).clamp_min(torch.finfo(x.dtype).tiny)
        fraction = ((x - left) / width).clamp(0, 1)
        fraction = torch.where((above == 0) | (above == count), torch.zeros_like(x), fraction)
        # #{sample >= x}: count - above, less the part of the gap already crossed
        remaining = (count - above) - fraction + (above > 0).to(x) * (above < count).to(x)
        log_p = torch.log((remaining + 1) / (count + 1)).clamp_max(0.0)
        excess = (x - self.sample[-1]).clamp_min(0) / self.scale
        return log_p - excess
