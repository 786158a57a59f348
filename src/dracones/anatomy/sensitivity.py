"""Checks that keep one honest: constants, noise, image size, the resizing filter, the dequantisation seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dracones.anatomy.estimates import auroc_estimate, mean_estimate
from dracones.anatomy.figures import WIDTH, intervals
from dracones.anatomy.finding import Finding, Row
from dracones.anatomy.needs import UnsupportedError, needs_points
from dracones.anatomy.sides import NORMAL, Sides, checked_sides, evaluating, statistics_of
from dracones.densities import Density
from dracones.images import Preprocess
from dracones.metrics import Estimate
from dracones.report.style import legend_above
from dracones.rules import gather

Filter = Literal["bilinear", "bicubic", "nearest"]
_ALONE = ("trivial", "filter")
"""Kinds that compare with the normal images alone and so have no other set's colour."""
FILTERS: tuple[Filter, ...] = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Check:
    """One treatment and what it does to the plain likelihood's verdict."""

    kind: str
    """``trivial``, ``filter``, ``size`` or ``seed``."""
    name: str
    bits_per_dim: Estimate
    """Of the treated images."""
    auroc: Mapping[str, Estimate]
    """Of −log p: what is compared to AUROC."""


@dataclass(frozen=True)
class Sensitivity(Finding):
    """How far the plain likelihood's verdict hangs on things that should not matter."""

    title: ClassVar[str] = "Checks that keep one honest"
    look_for: ClassVar[str] = (
        "Constants and noise: a likelihood that prefers blank images is blind to content. Filter: the same normal "
        "images, once shrunk and enlarged, against themselves as they are; far from 0.5 means that resizing one "
        "side alone would fake a result. Size: the comparison itself with both sides shrunk and enlarged. Seeds: "
        "the same comparison with other dequantisation noise; it should not move."
    )

    checks: tuple[Check, ...]
    seed_spread: float
    """Deviation of an image's log p over dequantisation seeds, relative to the deviation over normal images."""

    def of(self, kind: str) -> tuple[Check, ...]:
        """The checks of one kind."""
        return tuple(check for check in self.checks if check.kind == kind)

    def rows(self) -> list[Row]:
        """One row a check and comparison."""
        return [
            {
                "check": check.kind,
                "treatment": check.name,
                "bits/dim": check.bits_per_dim,
                "compared": what,
                "AUROC": area,
            }
            for check in self.checks
            for what, area in check.auroc.items()
        ]

    def in_words(self) -> list[str]:
        """What the seeds move, where there are any."""
        seeds = self.of("seed")
        if not seeds:
            return []
        moves = []
        for name in seeds[0].auroc:
            values = [check.auroc[name].value for check in seeds]
            moves.append(f"{name} {min(values):.3f} to {max(values):.3f}")
        return [
            f"Over {len(seeds)} dequantisation seeds the AUROC is {', '.join(moves)}; the noise moves an image's log p "
            f"by {self.seed_spread:.1%} of the deviation among normal images."
        ]

    def figure(self) -> Figure:
        """AUROCs of all checks, by kind."""
        kinds = {
            "trivial": "blank images and noise against normal",
            "filter": "normal, resized, against normal",
            "size": "both sides resized",
            "seed": "other dequantisation seeds",
        }
        present = [kind for kind in kinds if self.of(kind)]
        lines = [len(self.of(kind)) for kind in present]
        figure = Figure(figsize=(WIDTH, sum(0.75 + 0.27 * count for count in lines)), layout="constrained")
        panels = figure.subplots(len(present), 1, squeeze=False, height_ratios=[count + 1.5 for count in lines])
        for axis, kind in zip(panels[:, 0], present, strict=True):
            checks = self.of(kind)
            compared = list(checks[0].auroc)
            series = {name: [check.auroc[name] for check in checks] for name in compared}
            intervals(axis, [check.name for check in checks], series, label="AUROC of −log p", plain=kind in _ALONE)
            axis.set_title(kinds[kind], fontsize=9, loc="left")
            axis.set_xlim(-0.02, 1.02)
            if kind == "size":
                legend_above(figure, axis, columns=3)
        return figure


def sensitivity(
    density: Density,
    normal: Tensor,
    others: Mapping[str, Tensor],
    *,
    sizes: Sequence[int] | None = None,
    filters: Sequence[Filter] = FILTERS,
    seeds: int = 5,
    trivial: int = 32,
    seed: int = 0,
    batch_size: int = 256,
) -> Sensitivity:
    """Treat images in ways that should not change a verdict, or must change it, and look what happens.

    Args:
        density: any; a discrete one has no dequantisation seed and skips that check.
        normal: images [N, C, H, W] in [0, 1].
        others: name to images of the same shape.
        sizes: heights to which both sides are shrunk before they are enlarged again (width in proportion); by
            default a half and a quarter of the images' own.
        filters: for the one-sided check, at half size.
        seeds: dequantisation seeds.
        trivial: images of each trivial kind.
        seed: of noise and seeds.
        batch_size: images at a time.

    Reference:
        Constants and noise: Nalisnick et al. (2019), appendix. That a smaller size alone moves the AUROC of a raw
        likelihood towards 0.5 is known from later work, so a comparison without its size means little.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> found = sensitivity(density, torch.rand(9, 1, 8, 8), {"black": torch.zeros(9, 1, 8, 8)}, seeds=2)
        >>> [check.name for check in found.of("trivial")][:2]
        ['black', 'mid-gray']
    """
    sides = checked_sides(density, normal, others)
    likelihood = _Likelihood(density, batch_size)
    reference = likelihood(sides.normal)
    checks = [
        likelihood.check("trivial", name, reference, {"against normal": images})
        for name, images in trivial_images(density.image_shape, trivial, seed=seed).items()
    ]
    height = density.image_shape[1]
    half = max(1, height // 2)
    for filter_name in filters:
        treated = there_and_back(sides.normal, half, filter_name)
        checks.append(likelihood.check("filter", f"{filter_name}, {half} px", reference, {"against itself": treated}))
    for size in sizes if sizes is not None else sorted({max(1, height // 4), half}):
        shrunk = {name: there_and_back(images, size, "bilinear") for name, images in sides.all.items()}
        checks.append(likelihood.check("size", f"{size} px", likelihood(shrunk.pop(NORMAL)), shrunk))
    spread = 0.0
    if _is_dequantised(density):
        by_seed, spread = _seeds(density, sides, seeds, seed, batch_size)
        checks += by_seed
    return Sensitivity(tuple(checks), spread)


def trivial_images(image_shape: tuple[int, int, int], count: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Images without content, by name: black, mid-gray, white, one random colour each, uniform and normal noise.

    >>> sorted(trivial_images((1, 4, 4), 2))
    ['black', 'mid-gray', 'normal noise', 'random constant', 'uniform noise', 'white']
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *image_shape)
    flat = torch.rand(count, image_shape[0], 1, 1, generator=generator).expand(shape)
    found = {
        "black": torch.zeros(shape),
        "mid-gray": torch.full(shape, 0.5),
        "white": torch.ones(shape),
        "random constant": flat,
        "uniform noise": torch.rand(shape, generator=generator),
        "normal noise": (0.5 + torch.randn(shape, generator=generator)).clamp(0, 1),
    }
    return {name: (images * 255).round() / 255 for name, images in found.items()}


def there_and_back(images: Tensor, height: int, interpolation: Filter) -> Tensor:
    """Shrink 8-bit images to a height and enlarge them to their own again, both with one filter.

    >>> there_and_back(torch.eye(4)[None, None], 1, "nearest").unique().numel()
    1
    """
    own = (images.shape[2], images.shape[3])
    small = (height, max(1, round(own[1] * height / own[0])))
    for size in (small, own):
        images = Preprocess(size=size, channels=images.shape[1], interpolation=interpolation)(images, levels=256)
    return images


class _Likelihood:
    """log p of images [N], and checks made of it."""

    def __init__(self, density: Density, batch_size: int) -> None:
        self.density, self.batch_size = density, batch_size

    def __call__(self, images: Tensor) -> np.ndarray:
        with evaluating(self.density):
            found = gather(self.density, images, ["log_prob"], batch_size=self.batch_size)
        return found["log_prob"].numpy()

    def check(self, kind: str, name: str, reference: np.ndarray, treated: Mapping[str, Tensor]) -> Check:
        values = {what: self(images) for what, images in treated.items()}
        return _check(self.density, kind, name, reference, values)


def _check(density: Density, kind: str, name: str, reference: np.ndarray, values: Mapping[str, np.ndarray]) -> Check:
    first = reference if kind in ("size", "seed") else next(iter(values.values()))
    bits = mean_estimate(-first / (density.dimensions * np.log(2)))
    return Check(kind, name, bits, {what: auroc_estimate(-reference, -each) for what, each in values.items()})


def _seeds(density: Density, sides: Sides, seeds: int, seed: int, batch_size: int) -> tuple[list[Check], float]:
    checks, normal = [], []
    for number in range(seed, seed + seeds):
        generator = torch.Generator().manual_seed(number)
        found = statistics_of(density, sides, ("log_prob",), generator=generator, batch_size=batch_size)
        values = {name: each["log_prob"] for name, each in found.items()}
        reference = values.pop(NORMAL)
        normal.append(reference)
        checks.append(_check(density, "seed", f"seed {number}", reference, values))
    over_seeds = np.stack(normal)
    among_images = float(over_seeds.mean(0).std())
    return checks, float(over_seeds.std(0).mean() / among_images) if among_images else float("inf")


def _is_dequantised(density: Density) -> bool:
    """Whether log p depends on dequantisation noise."""
    try:
        needs_points(density, "dequantisation seeds")
    except UnsupportedError:
        return False
    return True
