"""The chart of a monitor: evidence that images have changed, over the images in their order."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dracones.report.picture import Picture
from dracones.report.style import DASHES, INK, MUTED, PALETTE, legend_above, legend_name, new_axes, picture, styled

_POINTS = 600
_MOST = len(PALETTE)


@styled
def evidence_curves(
    curves: Mapping[str, Sequence[float]],
    threshold: float,
    *,
    alarms: Mapping[str, int | None] | None = None,
    png: bool = False,
) -> Picture:
    """The capital of each monitored stream on a logarithmic axis, with the threshold of its alarm.

    Of more than seven streams those that rose highest are drawn.

    Args:
        curves: log capital after each image.
        threshold: the log capital that raises an alarm.
        alarms: at which image, from 1, each stream raised one.
        png: as PNG on white, not as SVG.

    Example:
        >>> drawn = evidence_curves({"camera 1": [0.0, -0.1, 2.0, 5.0]}, 4.7, alarms={"camera 1": 4})
        >>> drawn.media_type, drawn.numbers["curves"]["camera 1"]["alarm"]
        ('image/svg+xml', 4)
    """
    raised = alarms or {}
    shown = sorted(curves, key=lambda name: -max(curves[name], default=0.0))[:_MOST]
    figure, axes = new_axes(ylabel="evidence of a change (capital of the bet against 'no change')", xlabel="image")
    numbers: dict[str, Any] = {"threshold": threshold, "curves": {}}
    for name, colour, dash in zip([name for name in curves if name in shown], PALETTE, DASHES, strict=False):
        values = np.asarray(curves[name], dtype=np.float64) / math.log(10)
        places = _outline(values)
        axes.plot(places + 1, values[places], color=colour, linestyle=dash, label=legend_name(name))
        alarm = raised.get(name)
        if alarm is not None:
            axes.plot([alarm], [values[alarm - 1]], "o", color=colour, markersize=6)
        numbers["curves"][name] = {"image": places + 1, "log10_capital": values[places], "alarm": alarm}
    axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    axes.axhline(threshold / math.log(10), color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="alarm")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"10^{value:.0f}" if value else "1"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend_above(figure, axes)
    alt = f"Evidence of a change over images, for {', '.join(numbers['curves'])}"
    return picture(figure, alt, numbers, png=png)


def _outline(values: np.ndarray) -> np.ndarray:
    """Places of a thinned curve that keeps the lowest and the highest value of every stretch."""
    if len(values) <= _POINTS:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), _POINTS // 2)
    kept = [stretch[pick] for stretch in stretches for pick in (values[stretch].argmin(), values[stretch].argmax())]
    return np.unique([0, *kept, len(values) - 1])
