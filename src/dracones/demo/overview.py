"""The demo in one picture: what fools a likelihood, what repairs it, and where the foreign object lies."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dracones.demo.photographs import SURFACE, DemoImages
from dracones.demo.story import FALSE_ALARM_RATE, DemoResult

_SHOWN = ("brick", "moon", "camera", "page", "grass")
_SCENES = 3


def draw_overview(path: Path, result: DemoResult, images: DemoImages) -> Path:
    """Write the picture to ``path`` (PNG)."""
    figure = Figure(figsize=(10, 4.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    rows: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.1))
    _sets(rows[0], result, images)
    _scenes(rows[1], result, images)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path


def _sets(figure: Any, result: DemoResult, images: DemoImages) -> None:
    figure.suptitle(f"Trained on {SURFACE}. AUROC against it, by likelihood → by the rule auto", fontsize=11)
    axes = figure.subplots(1, 1 + len(_SHOWN))
    sets = {SURFACE: images.test, **{name: images.others[name] for name in _SHOWN}}
    for axis, (name, crops) in zip(axes, sets.items(), strict=True):
        _show(axis, np.concatenate([crops[0, 0].numpy(), crops[1, 0].numpy()], axis=1))
        if name == SURFACE:
            axis.set_title(f"{name}\nbelongs", fontsize=10)
            continue
        values = result.auroc[name]
        fooled = values["likelihood"] < 0.5
        axis.set_title(
            f"{name}\n{values['likelihood']:.2f} → {values['auto']:.2f}",
            fontsize=10,
            color="#b3261e" if fooled else "#1a1a1a",
        )


def _scenes(figure: Any, result: DemoResult, images: DemoImages) -> None:
    pixel, realised = result.pixel["auroc"]["value"], result.realised
    figure.suptitle(
        f"A foreign object, and the heat map (pixel AUROC {pixel:.2f}; false alarms {realised:.1%}, "
        f"promised {FALSE_ALARM_RATE:.0%})",
        fontsize=11,
    )
    axes = figure.subplots(1, 2 * _SCENES)
    low, high = float(np.median(result.maps)), float(np.quantile(result.maps, 0.98))
    for i in range(_SCENES):
        _show(axes[2 * i], images.scenes.images[i, 0].numpy())
        axes[2 * i + 1].imshow(result.maps[i], cmap="inferno", vmin=low, vmax=high)
        axes[2 * i + 1].contour(images.scenes.masks[i].numpy(), levels=[0.5], colors="white", linewidths=0.9)
        axes[2 * i + 1].set_axis_off()


def _show(axis: Any, image: Any) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
