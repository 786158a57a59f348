"""Glow: activation normalisation, a 1x1 convolution, a coupling; repeated at several scales."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from dracones.densities.flow_density import FlowDensity
from dracones.densities.registry import register
from dracones.flows import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijection,
    Chain,
    ConvNet,
    Flow,
    Highway,
    InvertibleConv1x1,
    MultiScale,
    Squeeze,
    channels,
)
from dracones.flows.conditioners import ZeroConv2d

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 8, "hidden": 64},
    "small": {"steps": 16, "hidden": 128},
    "base": {"steps": 32, "hidden": 256},
    "tiny-constant-volume": {"steps": 8, "hidden": 64, "coupling": "additive"},
    "small-constant-volume": {"steps": 16, "hidden": 128, "coupling": "additive"},
    # Kingma and Dhariwal 2018, CIFAR-10
    "glow-cifar10": {"levels": 3, "steps": 32, "hidden": 512, "scale": "sigmoid", "split_prior": True},
    # Kirichenko et al. 2020, appendix; Nalisnick et al. 2019 have the same sizes
    "kirichenko-fashionmnist": {
        "levels": 2,
        "steps": 16,
        "hidden": 200,
        "conditioner": "highway",
        "lu": False,
    },
    "kirichenko-cifar10": {
        "levels": 3,
        "steps": 8,
        "hidden": 400,
        "conditioner": "highway",
        "lu": False,
    },
}


@register("glow", _PRESETS)
class Glow(FlowDensity):
    """Each level: squeeze, then `steps` times ActNorm, 1x1 convolution, channel-wise coupling; half leaves.

    `levels` is the number of scales (None: as many as the sides can be halved, three at most). `coupling` is
    `affine` or `additive` (then the volume is the same for every image: constant-volume Glow, Nalisnick et al.
    2019). `conditioner` is `convnet` (3x3, 1x1, 3x3) or `highway` (three highway layers); `scale` the bound on
    the log-scale (`tanh`, `atan`, `sigmoid`); `bottleneck` the number l of dimensions that each conditioner may
    pass on. `split_prior`: what leaves at a level is a Gaussian whose mean and log-scale a convolution of zeros reads
    from what stays (as in their code), in place of N(0, 1): a coupling of its own at the end of the level, so that
    latents are standard normal all the same. The prior of the last level stays N(0, 1), which their code learns as one
    mean and scale a channel. `memory="constant"` trains in memory that does not grow with `steps`.

    Raises `ValueError` where a side cannot be halved `levels` times.

    Reference: Kingma and Dhariwal 2018, "Glow" (NeurIPS), figure 2; presets named after a paper have its sizes.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        levels: int | None = None,
        steps: int = 8,
        hidden: int = 64,
        conditioner: str = "convnet",
        coupling: str = "affine",
        scale: str = "tanh",
        lu: bool = True,
        bottleneck: int | None = None,
        split_prior: bool = False,
        margin: float = 0.05,
        memory: str = "standard",
        seed: int = 0,
    ) -> None:
        count, height, width = image_shape
        levels = halvings(height, width) if levels is None else levels
        if levels < 1 or height % 2**levels or width % 2**levels:
            raise ValueError(
                f"glow: {levels} levels need sides that can be halved {max(levels, 1)} times, got {height}x{width};"
                f" {sizes_that_go(height, width, max(levels, 1))}"
            )
        if steps < 1:
            raise ValueError(f"glow: steps must be at least 1, got {steps}")
        parts: list[Bijection] = []
        for level in range(levels):
            count, height, width = 4 * count, height // 2, width // 2
            network = _conditioner(conditioner, hidden, bottleneck, (height, width))
            layers: list[Bijection] = [Squeeze()]
            for _ in range(steps):
                layers += [ActNorm(count), InvertibleConv1x1(count, lu=lu), _coupling(coupling, count, network, scale)]
            if split_prior and level + 1 < levels:
                layers.append(_prior_of_leaving(count))
            parts.append(Chain(*layers, memory=memory))
            count //= 2
        shape = tuple(image_shape)
        super().__init__(shape, Flow(MultiScale(*parts), shape=shape), levels=levels, margin=margin, seed=seed)


def sizes_that_go(height: int, width: int, times: int) -> str:
    """Ways out for images whose sides cannot be halved so often, in words.

    >>> sizes_that_go(29, 31, 2)
    'cut them to 28x28 (crop=[28, 28]) or resize them (size=[28, 28])'
    """
    unit = 2**times
    cut = (max(unit, height // unit * unit), max(unit, width // unit * unit))
    fits = cut[0] <= height and cut[1] <= width
    ways = [f"cut them to {cut[0]}x{cut[1]} (crop=[{cut[0]}, {cut[1]}])"] if fits else []
    ways.append(f"resize them (size=[{cut[0]}, {cut[1]}])")
    fewer = halvings(height, width, most=30)
    if 0 < fewer < times:
        ways.append(f"take fewer levels (at most {fewer})")
    return " or ".join(ways)


def halvings(height: int, width: int, *, most: int = 3) -> int:
    """How often both sides can be halved, `most` at most.

    >>> halvings(28, 28), halvings(32, 32)
    (2, 3)
    """
    count = 0
    while count < most and height % 2 == 0 and width % 2 == 0 and min(height, width) > 2:
        height, width, count = height // 2, width // 2, count + 1
    return count


def _conditioner(
    name: str, hidden: int, bottleneck: int | None, size: tuple[int, int]
) -> Callable[[int, int], nn.Module]:
    if name == "convnet":
        return partial(ConvNet, hidden=hidden, bottleneck=bottleneck, size=size)
    if name == "highway":
        return partial(Highway, hidden=hidden, bottleneck=bottleneck, size=size)
    raise ValueError(f"glow: conditioner must be 'convnet' or 'highway', got {name!r}")


def _prior_of_leaving(count: int) -> Bijection:
    """Brings what leaves to N(0, 1), given what stays: `(z - mean) / deviation`, an affine coupling of the halves."""
    return AffineCoupling(channels(count), partial(ZeroConv2d, log_gain=True), scale=nn.Identity())


def _coupling(name: str, count: int, network: Callable[[int, int], nn.Module], scale: str) -> Bijection:
    if name == "affine":
        return AffineCoupling(channels(count), network, scale=scale)
    if name == "additive":
        return AdditiveCoupling(channels(count), network)
    raise ValueError(f"glow: coupling must be 'affine' or 'additive', got {name!r}")
