"""The charts of a report: each takes plain arrays, and gives a picture with the numbers it shows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from dracones.metrics import auroc, pr_curve, roc_curve
from dracones.report.picture import Picture
from dracones.report.style import (
    DASHES,
    INK,
    MARKS,
    MUTED,
    PALETTE,
    legend_above,
    legend_name,
    new_axes,
    picture,
    styled,
)

_CURVE_POINTS = 300
_BINS = 40


@styled
def score_histogram(
    groups: Mapping[str, ArrayLike],
    *,
    threshold: float | None = None,
    label: str = "anomaly score (larger = more anomalous)",
) -> Picture:
    """How the scores of each group are spread: share of the group per bin, over bins common to all.

    The outermost bins also hold what lies beyond them, where a few far scores would squeeze all others into one bin.

    Example:
        >>> drawn = score_histogram({"normal": [0.0, 1.0, 1.0], "anomalous": [4.0]}, threshold=2.0)
        >>> drawn.media_type, drawn.numbers["groups"]["normal"]["count"]
        ('image/svg+xml', 3)
    """
    values = {name: _finite(name, scores) for name, scores in groups.items()}
    edges = _bin_edges(np.concatenate([*values.values(), [] if threshold is None else [threshold]]))
    figure, axes = new_axes(ylabel="share of images", xlabel=label)
    numbers: dict[str, Any] = {"edges": edges, "threshold": threshold, "groups": {}}
    for (name, scores), colour in zip(values.items(), _cycle(PALETTE), strict=False):
        share = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0] / max(len(scores), 1)
        _steps(axes, share, edges, colour, f"{legend_name(name)} ({len(scores):,})", filled=len(values) < 4)
        numbers["groups"][name] = {"count": len(scores), "share": share}
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="threshold")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.set_ylim(bottom=0)
    legend_above(figure, axes)
    return picture(figure, f"Histogram of {label} for {_listed(values)}", numbers)


@styled
def roc_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Picture:
    """ROC of each named pair (scores, labels), anomalous (label 1) positive, with its AUROC."""
    figure, axes = new_axes(ylabel="anomalies found", xlabel="false alarms among normal images", height=340)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    numbers: dict[str, Any] = {}
    for (name, (scores, labels)), colour, dash in zip(curves.items(), _cycle(PALETTE), _cycle(DASHES), strict=False):
        area, curve = auroc(scores, labels), roc_curve(scores, labels)
        kept = _thinned(len(curve.false_positive_rate))
        x, y = curve.false_positive_rate[kept], curve.true_positive_rate[kept]
        axes.plot(x, y, color=colour, linestyle=dash, label=f"{legend_name(name)}: {area:.3f}", clip_on=False)
        numbers[name] = {"auroc": area, "false_positive_rate": x, "true_positive_rate": y}
    _unit_square(axes)
    legend_above(figure, axes)
    areas = _listed(f"{name} {values['auroc']:.3f}" for name, values in numbers.items())
    return picture(figure, f"ROC curves, AUROC: {areas}", numbers)


@styled
def pr_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Picture:
    """Precision against recall of each named pair (scores, labels), anomalous (label 1) positive.

    The dotted line is the precision of guessing: the share of anomalies among all images.
    """
    figure, axes = new_axes(ylabel="precision", xlabel="recall (share of anomalies found)", height=340)
    numbers: dict[str, Any] = {}
    for (name, (scores, labels)), colour, dash in zip(curves.items(), _cycle(PALETTE), _cycle(DASHES), strict=False):
        curve = pr_curve(scores, labels)
        area = float(np.sum(np.diff(curve.recall) * curve.precision[1:]))
        kept, base = _thinned(len(curve.recall)), float(np.mean(np.asarray(labels) == 1))
        x, y = curve.recall[kept], curve.precision[kept]
        # By convention the curve begins at precision 1, where nothing is found; drawn, that is a line of no meaning.
        y[0] = y[1]
        axes.axhline(base, color=colour, linewidth=1, linestyle=(0, (1, 2)))
        axes.plot(
            x,
            y,
            color=colour,
            linestyle=dash,
            drawstyle="steps-pre",
            label=f"{legend_name(name)}: {area:.3f}",
            clip_on=False,
        )
        numbers[name] = {"aupr": area, "precision": y, "recall": x, "share_of_anomalies": base}
    _unit_square(axes)
    legend_above(figure, axes)
    areas = _listed(f"{name} {values['aupr']:.3f}" for name, values in numbers.items())
    return picture(figure, f"Precision-recall curves, area: {areas}", numbers)


@styled
def training_curve(history: Iterable[Any], *, best_step: int | None = None, label: str = "loss") -> Picture:
    """Training and held-out loss; an entry has `step`, `train_loss`, `validation_loss` as attributes or keys."""
    lines = [entry if isinstance(entry, Mapping) else vars(entry) for entry in history]
    figure, axes = new_axes(ylabel=label, xlabel="step")
    numbers: dict[str, Any] = {"best_step": best_step}
    names = {"train_loss": "training", "validation_loss": "held out"}
    for (key, name), colour in zip(names.items(), PALETTE, strict=False):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, color=colour, label=name, marker="o", markersize=2.5)
            numbers[key] = {"step": steps, "loss": losses}
    if best_step is not None:
        axes.axvline(best_step, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), label="kept")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_above(figure, axes)
    return picture(figure, f"{label} during training", numbers)


@styled
def p_value_histogram(groups: Mapping[str, ArrayLike], *, false_alarm_rate: float | None = None) -> Picture:
    """Conformal p-values: flat (at the dotted line) for images like the calibration set, heaped at 0 for anomalies."""
    edges = np.linspace(0, 1, 21)
    figure, axes = new_axes(ylabel="share of images", xlabel="conformal p-value (small = anomalous)")
    numbers: dict[str, Any] = {"edges": edges, "false_alarm_rate": false_alarm_rate, "groups": {}}
    for (name, values), colour in zip(groups.items(), _cycle(PALETTE), strict=False):
        p = _finite(name, values)
        if np.any((p < 0) | (p > 1)):
            raise ValueError(f"p-values lie in [0, 1]; {name!r} holds {p.min():g} to {p.max():g}")
        share = np.histogram(p, edges)[0] / max(len(p), 1)
        _steps(axes, share, edges, colour, f"{legend_name(name)} ({len(p):,})", filled=len(groups) < 4)
        numbers["groups"][name] = {"count": len(p), "share": share}
    axes.axhline(0.05, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)), label="uniform")
    if false_alarm_rate is not None:
        axes.axvline(false_alarm_rate, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="false-alarm rate")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    legend_above(figure, axes)
    return picture(figure, f"Histogram of conformal p-values of {_listed(groups)}", numbers)


@styled
def scatter(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]], *, xlabel: str, ylabel: str, most: int = 400, seed: int = 0
) -> Picture:
    """Two numbers of each image against each other; of a group with more than `most` images, a random draw is shown."""
    figure, axes = new_axes(ylabel=ylabel, xlabel=xlabel, height=340)
    numbers: dict[str, Any] = {}
    for rank, (name, (x, y)) in enumerate(groups.items()):
        points = np.column_stack([np.asarray(x, dtype=float).ravel(), np.asarray(y, dtype=float).ravel()])
        if len(points) > most:
            points = points[np.sort(np.random.default_rng(seed).choice(len(points), most, replace=False))]
        mark, colour = MARKS[rank % len(MARKS)], PALETTE[rank % len(PALETTE)]
        axes.plot(*points.T, mark, color=colour, markersize=3, alpha=0.55, mew=0)
        axes.plot([], [], mark, color=colour, markersize=5, label=legend_name(name))
        numbers[name] = {xlabel: points[:, 0], ylabel: points[:, 1]}
    legend_above(figure, axes)
    return picture(figure, f"{ylabel} against {xlabel} for {_listed(groups)}", numbers)


@styled
def rate_curves(
    curves: Mapping[str, Sequence[Any]], x: Sequence[float], *, xlabel: str, ylabel: str, base: float | None = None
) -> Picture:
    """Rates with their intervals over a size, one curve a name; `base` is drawn as the rate of nothing at all.

    Args:
        curves: for each name one estimate (`value`, `low`, `high`) for each `x`.
        x: rising and positive; drawn on a logarithmic scale.
        xlabel: what `x` is.
        ylabel: what the rates are.
        base: a rate to compare with.

    Example:
        >>> drawn = rate_curves({"scar": [0.1, 0.9]}, [0.02, 0.04], xlabel="size", ylabel="found")
        >>> drawn.numbers["curves"]["scar"]["value"]
        [0.1, 0.9]
    """
    figure, axes = new_axes(ylabel=ylabel, xlabel=xlabel, height=340)
    numbers: dict[str, Any] = {"x": list(x), "base": base, "curves": {}}
    for rank, (name, rates) in enumerate(curves.items()):
        values, lows, highs = (list(column) for column in zip(*map(estimate, rates), strict=True))
        colour, mark = PALETTE[rank % len(PALETTE)], MARKS[rank % len(MARKS)]
        # Side by side, so that no interval hides another.
        shifted = [each * 1.03 ** (rank - (len(curves) - 1) / 2) for each in x]
        axes.vlines(shifted, lows, highs, color=colour, linewidth=1, alpha=0.6)
        axes.plot(shifted, values, f"{mark}-", color=colour, markersize=4, linewidth=1.2, label=legend_name(name))
        numbers["curves"][name] = {"value": values, "low": lows, "high": highs}
    if base is not None:
        axes.axhline(base, color=INK, linewidth=1, linestyle=(0, (4, 2)), label="promised false alarms")
    axes.set_xscale("log")
    axes.set_xticks(list(x), [f"{each:.3g}" for each in x])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend_above(figure, axes)
    return picture(figure, f"{ylabel} against {xlabel} for {_listed(curves)}", numbers)


def estimate(value: Any) -> tuple[float, float, float]:
    """Value and interval of a number, an `Estimate` or a mapping; the interval of a bare number is the number."""
    if isinstance(value, Mapping):
        return float(value["value"]), float(value["low"]), float(value["high"])
    if hasattr(value, "low"):
        return float(value.value), float(value.low), float(value.high)
    return float(value), float(value), float(value)


def _steps(
    axes: Any, share: NDArray[np.float64], edges: NDArray[np.float64], colour: str, label: str, *, filled: bool
) -> None:
    # Of many groups the areas would mix to mud: the outlines say enough.
    if filled or colour == PALETTE[0]:
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.28)
    axes.stairs(share, edges, color=colour, linewidth=1.6, label=label)


def _finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(f"{name!r} holds {bad} non-finite of {len(array)} values; leave out or repair them first")
    return array


def _bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) == 0:
        raise ValueError("there is nothing to draw: every group is empty")
    low, high = values.min(), values.max()
    inner_low, inner_high = np.percentile(values, [0.5, 99.5])
    # Only a long tail is folded into the last bin.
    if high - low > 3 * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _thinned(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(np.int64))


def _unit_square(axes: Any) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.005)


def _cycle(items: Sequence[Any]) -> Iterable[Any]:
    while True:
        yield from items


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
