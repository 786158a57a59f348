"""RealNVP, and the variants of its masks with which Kirichenko et al. show what its couplings look at."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from dracones.densities.flow_density import FlowDensity
from dracones.densities.registry import register
from dracones.flows import (
    AffineCoupling,
    Bijection,
    Chain,
    Flow,
    MultiScale,
    ResNet,
    Squeeze,
    channels,
    checkerboard,
    cycle,
    halves,
)

_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": 32, "blocks": 2},
    "small": {"hidden": 64, "blocks": 4},
    # Kirichenko et al. 2020: README's commands
    "kirichenko-fashionmnist": {"scales": 2, "hidden": 64, "blocks": 6},
    "kirichenko-celeba": {"scales": 3, "hidden": 64, "blocks": 8},
    # Kirichenko et al. 2020, section 6: full resolution, 8 couplings; tiny sizes, to be overridden
    "checkerboard8": {"masks": "checkerboard", "hidden": 32, "blocks": 2},
    "horizontal": {"masks": "horizontal", "hidden": 32, "blocks": 2},
    "cycle": {"masks": "cycle", "hidden": 32, "blocks": 2},
    "bottleneck": {"masks": "checkerboard", "hidden": 32, "blocks": 2, "bottleneck": 30},
}


@register("realnvp", _PRESETS)
class RealNVP(FlowDensity):
    """Affine couplings with residual networks, by checkerboard and by channel, at several scales.

    `masks="multiscale"` is the paper's flow: three checkerboard couplings, squeeze, three channel-wise ones on
    twice the hidden channels, half of the channels leaves, at every scale but the last, which has four
    checkerboard couplings (10 couplings for two scales, 16 for three). The others stay at full resolution and
    have `couplings` of one kind: `checkerboard`; `horizontal`, top half and bottom half in turn; `cycle`,
    quadrant to next quadrant clockwise, so that information needs four couplings to come back.
    `bottleneck` is the number l of dimensions through which each residual network passes what it has read.

    BatchNorm lies inside the networks alone; score in eval mode.

    Reference: Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP" (ICLR); Kirichenko,
    Izmailov and Wilson 2020, section 6 and appendix (masks, bottleneck).
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        masks: str = "multiscale",
        scales: int = 2,
        couplings: int = 8,
        hidden: int = 32,
        blocks: int = 2,
        bottleneck: int | None = None,
        margin: float = 0.05,
        memory: str = "standard",
        seed: int = 0,
    ) -> None:
        shape = (image_shape[0], image_shape[1], image_shape[2])
        make = partial(_coupling, blocks=blocks, bottleneck=bottleneck)
        if masks == "multiscale":
            bijection: Bijection = _multiscale(shape, scales, hidden, make, memory)
            levels = scales
        elif masks in ("checkerboard", "horizontal", "cycle"):
            if couplings < 1:
                raise ValueError(f"realnvp: couplings must be at least 1, got {couplings}")
            layers = [make(*_mask(masks, shape, i), shape, hidden) for i in range(couplings)]
            bijection, levels = Chain(*layers, memory=memory), 1
        else:
            raise ValueError(f"realnvp: masks must be multiscale, checkerboard, horizontal or cycle, got {masks!r}")
        super().__init__(shape, Flow(bijection, shape=shape), levels=levels, margin=margin, seed=seed)


def _mask(kind: str, shape: tuple[int, int, int], index: int) -> tuple[Tensor, Tensor]:
    """(reads, changes) of the coupling number `index`."""
    if kind == "cycle":
        return cycle(shape, index % 4)
    reads = (
        checkerboard(shape, reverse=index % 2 == 1) if kind == "checkerboard" else halves(shape, reverse=index % 2 == 1)
    )
    return reads, ~reads


def _multiscale(
    shape: tuple[int, int, int], scales: int, hidden: int, make: "partial[Bijection]", memory: str
) -> Bijection:
    count, height, width = shape
    if scales < 1 or height % 2 ** (scales - 1) or width % 2 ** (scales - 1):
        raise ValueError(
            f"realnvp: {scales} scales need sides that can be halved {max(scales - 1, 0)} times, got"
            f" {height}x{width}; crop or resize them to multiples of {2 ** (scales - 1)} (crop=..., size=...), or give"
            " fewer scales"
        )
    levels: list[Bijection] = []
    for scale in range(scales):
        last = scale == scales - 1
        here = (count, height, width)
        layers = [make(*_mask("checkerboard", here, i), here, hidden) for i in range(4 if last else 3)]
        if not last:
            layers.append(Squeeze())
            count, height, width, hidden = 4 * count, height // 2, width // 2, 2 * hidden
            for i in range(3):  # the first reads the second half, as in the authors' code
                reads = channels(count, reverse=i % 2 == 0)
                layers.append(make(reads, ~reads, (count, height, width), hidden))
            count //= 2
        levels.append(Chain(*layers, memory=memory))
    return MultiScale(*levels)


def _coupling(
    reads: Tensor,
    changes: Tensor,
    shape: tuple[int, int, int],
    hidden: int,
    *,
    blocks: int,
    bottleneck: int | None,
) -> Bijection:
    spatial = reads.dim() == 3
    network = partial(
        ResNet,
        hidden=hidden,
        blocks=blocks,
        # a checkerboard zeroes half of what the network sees, which halves its normalised size
        double_after_norm=spatial,
        bottleneck=bottleneck,
        size=shape[1:],
    )
    return AffineCoupling(reads, network, changes=changes)
