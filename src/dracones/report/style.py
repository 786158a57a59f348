"""One manner for all figures: colours that colour-blind readers tell apart, ink that is legible by day and by night."""

import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dracones.report.picture import Picture

# Okabe and Ito (2008), less the yellow and the black that vanish on a white or a dark page.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
# Colour is never the only mark: lines differ by dash too.
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), "-")
MARKS = "os^Dvp"
INK, MUTED, GRID = "#1b1f24", "#5b6470", "#d7dce2"
_BY_NIGHT = {
    INK: "#e8eaed",
    MUTED: "#a9b2bd",
    GRID: "#39414b",
    "#0072b2": "#4aa3e0",
    "#d55e00": "#f0803c",
    "#009e73": "#2bbd92",
}

# Drawn small, so that on a phone the text keeps its size; 96 CSS pixels are one inch.
WIDTH, HEIGHT = 440, 300

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 7),
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    # Text stays text: small files, and words that can be found and read aloud.
    "svg.fonttype": "none",
    "svg.hashsalt": "dracones",
    # A file called "$a$.png" is no formula.
    "text.parse_math": False,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """Run a drawing function under the style, and leave matplotlib's settings as found."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with mpl.rc_context(_RC), warnings.catch_warnings():
            # Letters that the measuring font lacks are still drawn, in the reader's own font.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            return draw(*args, **kwargs)

    return wrapper


def new_axes(width: int = WIDTH, height: int = HEIGHT, ylabel: str = "", xlabel: str = "") -> tuple[Figure, Axes]:
    """A figure of a size in CSS pixels with one pair of axes; the y label stands on top, where it is read."""
    figure = Figure(figsize=(width / 96, height / 96), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    if ylabel:
        axes.set_title(ylabel, loc="left", fontsize=9, color=MUTED, pad=6)
    return figure, axes


def legend_above(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """A legend over the plot, where it hides nothing, in as many columns as its names allow."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        room = 96 * figure.get_figwidth()
        fitting = [count for count in range(1, columns + 1) if _legend_width(labels, count) <= room]
        columns = min(max(fitting, default=1), len(handles))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def _legend_width(labels: list[str], columns: int) -> float:
    """Pixels, roughly: a letter takes 6.5, the sample and the gap beside it 42; columns are filled one by one."""
    rows = -(-len(labels) // columns)
    starts = range(0, len(labels), rows)
    return sum(6.5 * max(map(len, labels[start : start + rows])) + 42 for start in starts)


def legend_name(name: str) -> str:
    """A name as a legend takes it: matplotlib leaves out those that begin with an underscore."""
    return f"\u200b{name}" if name.startswith("_") else name


def picture(figure: Figure, alt: str, numbers: dict[str, Any] | None = None, *, png: bool = False) -> Picture:
    """The figure as SVG that follows the reader's light or dark setting, or as PNG on white."""
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    if png:
        raster = io.BytesIO()
        figure.savefig(raster, format="png", dpi=192, facecolor="white", metadata={"Software": None})
        return Picture(raster.getvalue(), "image/png", width, height, alt, numbers or {})
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    # Coordinates to a hundredth of a point are finer than any screen; the words between the tags are left alone.
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d\.\d{2})\d+", r"\1", tag.group()), svg)
    svg = re.sub(r"<\?xml.*?<svg", "<svg", svg, count=1, flags=re.DOTALL)
    svg = svg.replace("<defs>", _night_sheet() + "<defs>", 1)
    svg = svg.replace("'DejaVu Sans'", "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif")
    return Picture(svg.encode(), "image/svg+xml", width, height, alt, numbers or {})


def _night_sheet() -> str:
    rules = "".join(
        f'[style*="fill: {day}"]{{fill:{night} !important}}[style*="stroke: {day}"]{{stroke:{night} !important}}'
        for day, night in _BY_NIGHT.items()
    )
    return f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
