"""Each statistic on the scale of a standard normal variable, whatever its own distribution among normal images."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dracones.rules.rule import Rule

_FURTHEST = 1e6
_EDGE = 0.01  # below and above these quantiles the map goes on as a straight line


class NormalScores(Rule):
    """Monotone map of each statistic to a standard normal variable, linear beyond the sample's edges.

    Between the 1 % and 99 % quantiles of the normal images the map is the piecewise linear quantile
    transform. Beyond them a plain quantile transform would squeeze every far value onto the last rank; here the
    line goes on with the slope that the outer tenth of the sample has, so far values stay far. Where that tenth is a
    point mass (a share of saturated pixels that is nearly always zero) it gives no unit to measure a distance in:
    a value beyond it counts as the rarest rank that the sample can vouch for, 1 / (n + 1), however far it lies.
    `transform` gives [B, number of statistics].
    """

    needs_fit = True
    knots: Tensor
    targets: Tensor
    slopes: Tensor
    reach: Tensor

    def __init__(self, names: tuple[str, ...], *, count: int = 25) -> None:
        super().__init__()
        self.requires = names
        self.count = count
        self.fitted_buffers("knots", "targets", "slopes", "reach")

    def _fit(self, statistics: dict[str, Tensor]) -> None:
        values = torch.stack([statistics[name] for name in self.requires], dim=1)
        # with few images the outer quantiles would be single values: stay within ranks that exist
        edge = max(_EDGE, 2.0 / (len(values) + 1))
        levels = torch.linspace(edge, 1 - edge, self.count, dtype=values.dtype, device=values.device)
        self.targets = torch.special.ndtri(levels)
        self.knots = torch.quantile(values, levels, dim=0).T.contiguous()
        outer = max(1, int(0.1 * self.count))
        rise = self.targets[-1] - self.targets[-1 - outer]
        runs = torch.stack(
            [self.knots[:, outer] - self.knots[:, 0], self.knots[:, -1] - self.knots[:, -1 - outer]], dim=1
        )
        # a tail narrower than a hundredth of the whole spread is a point mass or rounding, not a tail
        spread = values.std(dim=0) + 1e-9 * (1 + values.abs().amax(dim=0))
        is_point_mass = runs < 0.01 * spread[:, None]
        self.slopes = rise / torch.where(is_point_mass, spread[:, None], runs)
        rarest = -torch.special.ndtri(torch.tensor(1 / (len(values) + 1), dtype=values.dtype, device=values.device))
        beyond_edge = (rarest - self.targets[-1]).clamp_min(0)
        self.reach = torch.where(is_point_mass, beyond_edge, torch.inf)

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        return self._transform(statistics).abs().amax(dim=1)

    def transform(self, statistics: Mapping[str, Tensor]) -> Tensor:
        """Normal scores [B, number of statistics] of statistics that hold at least `requires`."""
        return self._transform(statistics)

    def _transform(self, statistics: Mapping[str, Tensor]) -> Tensor:
        values = torch.stack([statistics[name].double() for name in self.requires], dim=1)
        knots, targets, (columns, count) = self.knots, self.targets, self.knots.shape
        index = (knots < values[:, :, None]).sum(dim=2).clamp(1, count - 1)
        place = index + count * torch.arange(columns, device=values.device)
        left, right = knots.flatten()[place - 1], knots.flatten()[place]
        width = right - left
        step = (values > left).double()  # where knots lie upon each other
        fraction = torch.where(width > 0, ((values - left) / width).clamp(0, 1), step)
        inside = targets[index - 1] + fraction * (targets[index] - targets[index - 1])
        below = ((knots[:, 0] - values).clamp_min(0) * self.slopes[:, 0]).clamp_max(self.reach[:, 0])
        above = ((values - knots[:, -1]).clamp_min(0) * self.slopes[:, 1]).clamp_max(self.reach[:, 1])
        return inside - below + above
