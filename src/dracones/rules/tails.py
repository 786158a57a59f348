"""How far out a value lies in a sample of normal values: the common currency in which statistics are merged."""

import torch
from torch import Tensor

from dracones.rules.rule import Rule


def count_below(ordered: Tensor, values: Tensor) -> Tensor:
    """How many of the ordered [n] are strictly below each value [B], by bisection: a graph of fixed length.

    >>> count_below(torch.tensor([1.0, 2.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 2.5, 9.0])).tolist()
    [0, 1, 3, 4]
    """
    count = len(ordered)
    below = torch.zeros_like(values, dtype=torch.long)
    for bit in reversed(range(count.bit_length())):
        further = below + 2**bit
        is_below = (further <= count) & (ordered[(further - 1).clamp_max(count - 1)] < values)
        below = torch.where(is_below, further, below)
    return below


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
        above = count_below(self.sample, x)
        left = self.sample[(above - 1).clamp(0, count - 1)]
        right = self.sample[above.clamp(0, count - 1)]
        inside = (above > 0) & (above < count)  # there left < x <= right
        width = torch.where(inside, right - left, torch.ones_like(x))
        fraction = torch.where(inside, ((x - left) / width).clamp(0, 1), torch.zeros_like(x))
        # #{sample >= x}: count - above, less the part of the gap already crossed
        remaining = (count - above) - fraction + inside.to(x)
        log_p = torch.log((remaining + 1) / (count + 1)).clamp_max(0.0)
        excess = (x - self.sample[-1]).clamp_min(0) / self.scale
        return log_p - excess
