"""The look of every figure of the anatomy: one palette, histograms, image grids, without pyplot."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from dracones.report import Picture
from dracones.report.style import MARKS, MUTED, PALETTE, legend_name, picture, styled

Array = NDArray[np.float64]

WIDTH = 4.6
"""Inches, for every figure but image grids: narrow enough that its text stays legible on a phone."""


def colour(index: int) -> str:
    """Colour of the i-th set; the normal set is the first."""
    return PALETTE[index % len(PALETTE)]


def new_figure(rows: int = 1, *, height: float = 2.6) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, one above the other; ``height`` is that of one panel, in inches."""
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


@styled
def drawn(draw: Callable[[], Figure], alt: str, numbers: dict[str, Any] | None = None) -> Picture:
    """A finding's figure in the manner of the reports, as a picture for a page."""
    return picture(draw(), alt, numbers)


def histograms(axes: Axes, values: Mapping[str, Array], *, label: str) -> None:
    """Outlined histograms of every set on common bins, each of unit area; the normal set, the first, is filled.

    The outermost bins hold all that lies beyond.
    """
    low, high = _window([np.asarray(array, dtype=float) for array in values.values()])
    bins = np.linspace(low, high, 41).tolist()
    for index, (name, array) in enumerate(values.items()):
        style: dict[str, Any] = {"histtype": "stepfilled", "alpha": 0.35} if index == 0 else {"histtype": "step"}
        style |= {"color": colour(index), "linewidth": 1.8, "label": legend_name(name)}
        axes.hist(np.clip(array, low, high), bins=bins, density=True, **style)
    axes.set_xlabel(label)
    axes.set_yticks([])


def _window(sets: Sequence[Array], *, around: float = 3.0) -> tuple[float, float]:
    """Where the sets lie, and at most so many times the normal set's width beyond it: far ones would squeeze all."""
    finite = [array[np.isfinite(array)] for array in sets]
    every = np.concatenate(finite)
    if not len(every):
        return 0.0, 1.0
    low, high = np.quantile(every, [0.002, 0.998])
    if len(finite[0]):
        left, right = np.quantile(finite[0], [0.01, 0.99])
        if right > left:
            reach = around * (right - left)
            low, high = max(low, left - reach), min(high, right + reach)
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def show_image(axes: Axes, image: Tensor | Array, *, limit: float | None = None) -> None:
    """One image [C, H, W]: pixels in [0, 1], or, with ``limit``, signed values on a diverging scale.

    Of signed images of several channels the mean over the channels is shown.
    """
    array = np.asarray(image.detach().cpu().numpy() if isinstance(image, Tensor) else image, dtype=float)
    if limit is not None:
        axes.imshow(array.mean(0), cmap=colormaps["RdBu_r"], vmin=-limit, vmax=limit, interpolation="nearest")
    elif len(array) == 3:
        axes.imshow(np.clip(array.transpose(1, 2, 0), 0, 1), interpolation="nearest")
    else:
        axes.imshow(array.mean(0), cmap=colormaps["gray"], vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def image_grid(
    rows: Sequence[tuple[str, Sequence[Tensor | None], float | Sequence[float | None] | None]],
    *,
    titles: Sequence[str] = (),
) -> Figure:
    """Rows of images: (name, images, limit), ``titles`` above the columns.

    An image may be None, which leaves its place empty; a limit (see `show_image`) is one for the row or one a column.
    """
    columns = max(len(images) for _, images, _ in rows)
    side = min(1.25, 7.0 / columns)
    size = (max(side * columns + 1.0, 3.0), (side + 0.12) * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, images, limit) in enumerate(rows):
        for column in range(columns):
            image = images[column] if column < len(images) else None
            axis = axes[row, column]
            if row == 0 and column < len(titles):
                axis.set_title(titles[column], fontsize=8)
            if image is not None:
                show_image(axis, image, limit=limit[column] if isinstance(limit, Sequence) else limit)
            else:
                axis.set_xticks([])
                axis.set_yticks([])
                axis.spines[:].set_visible(False)
        axes[row, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    return figure


def signed_limit(*images: Tensor) -> float:
    """A limit for a signed scale: the 99 % quantile of the absolute values."""
    every = np.concatenate([image.detach().cpu().numpy().ravel() for image in images])
    return float(np.quantile(np.abs(every), 0.99)) or 1.0


def line(
    axes: Axes, places: Sequence[float], estimates: Sequence[Any], *, index: int, label: str | None, style: str = "o-"
) -> None:
    """Estimates joined by a line in the colour of the set number ``index``, their intervals as a band."""
    values = [each.value for each in estimates]
    axes.plot(
        places, values, style, color=colour(index), markersize=4, label=None if label is None else legend_name(label)
    )
    low, high = [each.low for each in estimates], [each.high for each in estimates]
    axes.fill_between(places, low, high, color=colour(index), alpha=0.15, linewidth=0)


def intervals(
    axes: Axes,
    names: Sequence[str],
    values: Mapping[str, Sequence[Any]],
    *,
    label: str,
    chance: float | None = 0.5,
    plain: bool = False,
) -> None:
    """Estimates with their intervals as dots and bars, one line a name, one colour a set, or none (``plain``)."""
    count = len(values)
    for index, (series, estimates) in enumerate(values.items()):
        ink = MUTED if plain else colour(index + 1)
        mark = MARKS[index % len(MARKS)]
        for place, estimate in enumerate(estimates):
            if estimate is None:
                continue
            height = place + (index - (count - 1) / 2) * 0.8 / max(count, 1)
            axes.plot([estimate.low, estimate.high], [height, height], color=ink, linewidth=2, alpha=0.6)
            label_once = legend_name(series) if place == 0 else None
            axes.plot(estimate.value, height, mark, color=ink, markersize=5, label=label_once)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)
    if chance is not None:
        axes.axvline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
