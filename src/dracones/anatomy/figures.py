"""The look of every figure of the anatomy: one palette, histograms, image grids, without pyplot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

# Okabe and Ito's colours, told apart by colour-blind readers; the first is always the normal set.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B")


def colour(index: int) -> str:
    """Colour of the i-th set; the normal set is the first."""
    return _COLOURS[index % len(_COLOURS)]


def new_figure(rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 2.8) -> tuple[Figure, Any]:
    """A figure and its axes as an array [rows, columns]; ``height`` is that of one row, in inches."""
    figure = Figure(figsize=(width, height * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=9)
    return figure, axes


def histograms(axes: Axes, values: Mapping[str, Array], *, label: str) -> None:
    """Outlined histograms of every set on common bins, each of unit area; the normal set is filled."""
    every = np.concatenate([np.asarray(array, dtype=float) for array in values.values()])
    every = every[np.isfinite(every)]
    # The tails of one wild image would squeeze all others into one bin.
    low, high = np.quantile(every, [0.002, 0.998]) if len(every) else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 41).tolist()
    for index, (name, array) in enumerate(values.items()):
        style: dict[str, Any] = {"histtype": "stepfilled", "alpha": 0.35} if index == 0 else {"histtype": "step"}
        style |= {"color": colour(index), "linewidth": 1.8, "label": name}
        axes.hist(np.clip(array, low, high), bins=bins, density=True, **style)
    axes.set_xlabel(label, fontsize=9)
    axes.set_yticks([])


def legend(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """One legend for the whole figure, above it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=9, frameon=False)


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
    figure, axes = new_figure(len(rows), columns, width=max(side * columns + 1.0, 3.0), height=side + 0.12)
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
    axes.plot(places, values, style, color=colour(index), markersize=4, label=label)
    low, high = [each.low for each in estimates], [each.high for each in estimates]
    axes.fill_between(places, low, high, color=colour(index), alpha=0.15, linewidth=0)


def intervals(
    axes: Axes, names: Sequence[str], values: Mapping[str, Sequence[Any]], *, label: str, chance: float | None = 0.5
) -> None:
    """Estimates with their intervals as dots and bars, one line a name, one colour a set."""
    count = len(values)
    for index, (series, estimates) in enumerate(values.items()):
        for place, estimate in enumerate(estimates):
            if estimate is None:
                continue
            height = place + (index - (count - 1) / 2) * 0.8 / max(count, 1)
            axes.plot([estimate.low, estimate.high], [height, height], color=colour(index + 1), linewidth=2, alpha=0.6)
            axes.plot(
                estimate.value, height, "o", color=colour(index + 1), markersize=5, label=series if place == 0 else None
            )
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=9)
    if chance is not None:
        axes.axvline(chance, color="#999999", linewidth=1, linestyle=":")
