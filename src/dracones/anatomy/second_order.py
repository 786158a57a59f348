"""The second-order explanation: a set of lower variance gets the higher likelihood, and by how much."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dracones.anatomy.curvature import linear_gains, published_gains
from dracones.anatomy.estimates import difference_estimate
from dracones.anatomy.expansion import TOLERANCE, Expansion, Shrunk, halved, reached
from dracones.anatomy.figures import colour, image_grid, intervals, new_figure, signed_limit
from dracones.anatomy.finding import DRAWN, Finding, Row, without_empty
from dracones.anatomy.needs import UnsupportedError, needs_constant_volume, needs_points
from dracones.anatomy.sides import NORMAL, Sides, checked_sides, device_of, evaluating
from dracones.densities import Density, FlowDensity
from dracones.metrics import Estimate
from dracones.report.style import MUTED, legend_above

ASSUMING = "(assumes uncorrelated pixels)"


@dataclass(frozen=True)
class SecondOrderNumbers:
    """One other set against the normal images. Gaps are other − normal: positive where the other set is likelier."""

    variance_gap: Estimate
    """Σ over all pixels of the variance difference, pixels in [0, 1]; negative: the other set varies less."""
    variance_gap_by_channel: tuple[Estimate, ...]
    measured: Estimate
    """Mean log p of the other set less that of the normal images, nats."""
    predicted: Estimate
    """½ Tr H(Σ_q − Σ_p) with full covariances: Hessian-vector products with the images themselves, nats."""
    predicted_diagonal: Estimate
    """½ Σ_i H_ii (σ²_q,i − σ²_p,i), covariances taken for diagonal as published; Hutchinson's estimate, nats."""
    aligned: Estimate
    """The measured gap with the other set moved to the normal images' mean, which is what the argument speaks of, nats;
    what leaves the unit cube on the way is clipped to it."""
    mean_terms: float
    """∇log p·(μ_q − μ_p) + ½ (μ_q − μ_p)ᵀ H (μ_q − μ_p), which the argument assumes to be zero, nats."""
    published_formula: float | None
    """The diagonal formula with α from the convolutions' row sums; None unless a constant-volume Glow, nats."""
    linear_formula: float | None
    """The same with the exact norms of the linear part and the logit's own curvature; None likewise, nats."""


@dataclass(frozen=True)
class SecondOrder(Finding):
    """Measured and predicted gaps in log-likelihood of each other set."""

    title: ClassVar[str] = "Does lower variance explain it"
    look_for: ClassVar[str] = (
        "If the predicted gap has the sign of the measured one, the other set is likelier because its pixels vary "
        "less about the same mean, whatever it shows. Blue pixels vary less in the other set. The prediction is an "
        "expansion about one image: it means something only up to the contrast at which it still gives what is "
        "measured, and explains the sets as they are only where that is full contrast."
    )

    others: Mapping[str, SecondOrderNumbers]
    shrinking: Mapping[str, tuple[Shrunk, ...]]
    """Set to log p as its images shrink towards the normal mean, measured and predicted, from full contrast down."""
    dimensions: int
    probes: int
    variance_maps: Mapping[str, Tensor] = field(metadata=DRAWN, repr=False)
    """[C, H, W]: variance of the other set less that of the normal images."""

    def rows(self) -> list[Row]:
        """One row an other set; gaps in bits per dimension."""
        rows: list[Row] = [
            {
                "set": name,
                "variance gap": found.variance_gap,
                "measured": self._bits(found.measured),
                "means aligned": self._bits(found.aligned),
                "predicted": self._bits(found.predicted),
                f"diagonal {ASSUMING}": self._bits(found.predicted_diagonal),
                f"published formula {ASSUMING}": self._bits(found.published_formula),
                f"exact gains {ASSUMING}": self._bits(found.linear_formula),
                "from the means": self._bits(found.mean_terms),
            }
            for name, found in self.others.items()
        ]
        return without_empty(rows)

    def shrink_rows(self) -> list[Row]:
        """One row a set and contrast; bits per dimension gained on the mean image, negative where log p falls."""
        return [
            {
                "set": name,
                "contrast": each.contrast,
                "measured": self._bits(each.measured),
                "predicted": self._bits(each.predicted),
                "within 20 %": "yes" if each.holds else "no",
            }
            for name, curve in self.shrinking.items()
            for each in curve
        ]

    def holds_up_to(self, name: str) -> float | None:
        """The largest contrast of a set up to which every prediction is within 20 % of the measurement; None: no one.

        The normal images' own expansion counts as well: a gap is between the two.
        """
        ends = [reached(self.shrinking[each]) for each in (NORMAL, name)]
        return None if None in ends else min(each for each in ends if each is not None)

    def in_words(self) -> list[str]:
        """Whether the argument carries, a sentence a set."""
        said = []
        for name, found in self.others.items():
            gap, factor = found.variance_gap, found.predicted.value / (found.aligned.value or float("nan"))
            varies = "less than" if gap.high < 0 else "more than" if gap.low > 0 else "about as much as"
            up_to = self.holds_up_to(name)
            if up_to is None or up_to < 1:
                where = "at no contrast looked at" if up_to is None else f"up to contrast {up_to:g} only"
                carries = f"the expansion holds {where}, so at full contrast it explains nothing either way"
            elif found.predicted.low <= 0 <= found.predicted.high:
                carries = "the predicted gap cannot be told from zero"
            elif factor < 0:
                carries = "the prediction has the wrong sign, so lower variance is not the explanation here"
            elif 1 / 3 < factor < 3:
                carries = "the prediction has the right sign and size"
            else:
                carries = f"the prediction has the right sign but is {factor:.2g} times the measured gap"
            means = f"with the means aligned {self._bits(found.aligned).value:+.2f}"
            said.append(
                f"{name} varies {varies} the normal images; {carries}. The measured gap is "
                f"{self._bits(found.measured).value:+.2f} bits/dim, {means}."
            )
        return said

    def _bits(self, nats: Estimate | float | None) -> Any:
        scale = self.dimensions * math.log(2)
        if isinstance(nats, Estimate):
            return Estimate(*(value / scale for value in nats))
        return None if nats is None else nats / scale

    def figure(self) -> Figure:
        """Gaps with their intervals."""
        figure, axes = new_figure(len(self.others), height=2.0)
        labels = {
            "measured": "measured",
            "aligned": "means\naligned",
            "predicted": "predicted",
            "predicted_diagonal": "diagonal*",
        }
        for axis, (name, found) in zip(axes, self.others.items(), strict=True):
            estimates = [getattr(found, what) for what in labels]
            names = [*labels.values()]
            if found.linear_formula is not None:
                names.append("formula*")
                estimates.append(Estimate(found.linear_formula, found.linear_formula, found.linear_formula))
            bits = [self._bits(each) for each in estimates]
            intervals(axis, names, {name: bits}, label=f"{name}: gap in log p, bits/dim", chance=0.0)
            # A prediction may be off by orders of magnitude: linear up to a tenth of a bit, logarithmic beyond.
            axis.set_xscale("symlog", linthresh=0.1)
        axes[-1].set_xlabel(f"{axes[-1].get_xlabel()}\n* {ASSUMING}")
        return figure

    def shrink_figure(self) -> Figure:
        """Measured over predicted change of log p, by contrast: 1 where the expansion holds."""
        figure, (axis,) = new_figure(height=2.6)
        for index, (name, curve) in enumerate(self.shrinking.items()):
            places = [each.contrast for each in curve]
            axis.plot(places, [each.ratio for each in curve], "o-", color=colour(index), markersize=4, label=name)
        axis.axhspan(1 / (1 + TOLERANCE), 1 / (1 - TOLERANCE), color=MUTED, alpha=0.2, linewidth=0)
        axis.set_xscale("log", base=2)
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_title("measured over predicted change of log p", loc="left", fontsize=9)
        axis.set_xlabel("contrast (band: prediction within 20 %)")
        legend_above(figure, axis, columns=3)
        return figure

    def image_figure(self) -> Figure:
        """Where in the picture the variance differs."""
        limit = signed_limit(*[each.mean(0) for each in self.variance_maps.values()])
        return image_grid([("other − normal", list(self.variance_maps.values()), limit)], titles=list(self.others))


def second_order(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    probes: int = 64,
    count: int = 128,
    seed: int = 0,
    batch_size: int = 32,
) -> SecondOrder:
    """Expand log p about the mean normal image and predict the gap to each other set from the variances.

    E_q[log p] − E_p[log p] ≈ ½ Tr{∇² log p(x₀) (Σ_q − Σ_p)}, if both sets have the mean x₀. The trace is taken in three
    ways: with the full covariances, as mean of (x − μ)ᵀ H (x − μ) over images of each set; with diagonal ones, by
    Hutchinson's estimate over random signs; and, for a constant-volume Glow, by formula. Flows here see logits, the
    published Glow did not: the formulas carry the logit's slope. The last two take the pixels for uncorrelated, as the
    paper does; where they are correlated, the off-diagonal terms can turn the sign.

    The expansion is checked where it must hold: every set, moved to x₀ and shrunk towards it, is scored at contrasts
    from 1 down, and what is predicted is set beside what is measured.

    Args:
        density: a flow, or a VAE with a continuous likelihood.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        probes: random sign vectors of Hutchinson's estimate.
        count: images of each set whose quadratic form is taken; means and variances use all.
        seed: of the probes.
        batch_size: Hessian-vector products at a time.

    Raises:
        UnsupportedError: a density of pixel levels, which has no gradient (the message names those that do).

    Reference:
        Nalisnick et al. (2019), section 5, eq. 3 to 6.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=4, levels=1)
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.rand(40, 1, 4, 4, generator=g)
        >>> found = second_order(density, x, {"pale": 0.5 + 0.2 * (x - 0.5)}, probes=4)
        >>> bool(found.others["pale"].variance_gap.value < 0 < found.others["pale"].measured.value)
        True
    """
    needs_points(density, "the second-order analysis")
    sides = checked_sides(density, normal, others)
    with torch.no_grad():
        points = {name: density.dequantise(x.to(device_of(density)))[0] for name, x in sides.all.items()}
    base = points.pop(NORMAL)
    moments = Expansion(density, base, count, seed, probes, batch_size)
    formula = _formula(density, moments)
    found = {}
    for name, other in points.items():
        difference = other.var(0) - base.var(0)
        found[name] = SecondOrderNumbers(
            _variance_gap(sides, name, None),
            tuple(_variance_gap(sides, name, channel) for channel in range(density.image_shape[0])),
            difference_estimate(moments.log_prob(other), moments.log_prob(base)),
            halved(difference_estimate(moments.forms(other), moments.own_forms)),
            moments.diagonal(difference),
            difference_estimate(moments.log_prob(moments.about_the_centre(other)), moments.log_prob(base)),
            moments.mean_terms(other.mean(0)),
            None if formula is None else float((formula[0] * difference).sum()) / 2,
            None if formula is None else float((formula[1] * difference).sum()) / 2,
        )
    shrinking = {name: moments.shrunk(each) for name, each in {NORMAL: base, **points}.items()}
    maps = {name: (images.var(0) - sides.normal.var(0)).cpu() for name, images in sides.others.items()}
    return SecondOrder(found, shrinking, density.dimensions, probes, maps)


def _formula(density: Density, moments: Expansion) -> tuple[Tensor, Tensor] | None:
    """Diagonals of the Hessian by the published formula and with exact gains, [C, H, W]; None for other densities."""
    try:
        flow = needs_constant_volume(density, "the trace formula")
    except UnsupportedError:
        return None
    slope, bend, volume = _logit_derivatives(flow, moments.centre)
    with evaluating(flow), torch.enable_grad():
        inputs = flow.logit.encode(moments.centre[None])[0].detach().requires_grad_()
        (pull,) = torch.autograd.grad(flow.flow.log_prob(inputs).sum(), inputs)
    published = -((published_gains(flow) * slope) ** 2)
    exact = -((linear_gains(flow) * slope) ** 2) + pull[0] * bend + volume
    return published, exact


def _logit_derivatives(flow: FlowDensity, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slope and second derivative of the logit, and second derivative of its log-slope, per pixel."""
    with torch.enable_grad():
        x = point[None].detach().clone().requires_grad_()
        value, _ = flow.logit.encode(x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, retain_graph=True)
        (change,) = torch.autograd.grad(slope.log().sum(), x, create_graph=True)
        (volume,) = torch.autograd.grad(change.sum(), x)
    return slope[0].detach(), bend[0].detach(), volume[0].detach()


def _variance_gap(sides: Sides, name: str, channel: int | None) -> Estimate:
    """Σ over pixels of the variance difference: a difference of mean squared distances to each set's own mean."""
    return difference_estimate(_distances(sides.others[name], channel), _distances(sides.normal, channel))


def _distances(images: Tensor, channel: int | None) -> Tensor:
    chosen = images if channel is None else images[:, channel : channel + 1]
    squared = (chosen - chosen.mean(0)).square().flatten(1).sum(1).double()
    return squared * (len(images) / (len(images) - 1))
