"""Whether a density has learnt its images at all: before that, no likelihood says anything."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dracones.densities import Density, bits_per_dim
from dracones.densities.flow_density import FlowDensity
from dracones.flows import StandardNormal
from dracones.images.codecs import codecs
from dracones.rules import gather

UNIFORM = 8.0
"""Bits per dimension of a density that finds all images of 256 levels equally likely."""
MARGIN = 1.25
"""A density may need this many times the bits of a lossless codec, which was never shown such an image."""
LATENT_GAP = 0.5
"""Nats per dimension by which log p(z) may miss what the base itself would give."""
FALLING = 0.01
"""Bits per dimension, relative, that a last epoch may still gain."""


@dataclass(frozen=True)
class Learnt:
    """What a density makes of normal images that it was not trained on.

    Attributes:
        bits: bits per dimension, mean over the images.
        codec: the codec that they are compared with; ``None`` where Pillow has none.
        codec_bits: its bits per dimension, mean over the images.
        latent_gap: mean log p(z) less that of the base's own draws, nats per dimension; ``None`` but for flows with a
            standard normal base.
        falling: relative gain of the last epoch, where the training ended before it was done; ``None`` where it was, or
            nothing is known of it.
    """

    bits: float
    codec: str | None = None
    codec_bits: float | None = None
    latent_gap: float | None = None
    falling: float | None = None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the likelihood says nothing; empty where nothing speaks against it."""
        said = []
        limit = UNIFORM if self.codec_bits is None else min(UNIFORM, self.codec_bits)
        if not self.bits <= MARGIN * limit:
            beside = "" if self.codec_bits is None else f", and lossless {_NAMES[self.codec]} {self.codec_bits:.2f}"
            said.append(
                f"it needs {self.bits:.2f} bits per dimension for normal images, where knowing nothing needs "
                f"{UNIFORM:.2f}{beside}"
            )
        if self.latent_gap is not None and not abs(self.latent_gap) <= LATENT_GAP:
            said.append(
                f"latents of normal images are not those of its base: log p(z) is {self.latent_gap:+.2f} nats per "
                "dimension from what it should be"
            )
        return tuple(said)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What does not forbid to judge and should be known."""
        if self.falling is None:
            return ()
        return (
            f"Its training ended while an epoch still gained {100 * self.falling:.1f} % of its bits: train longer.",
        )

    @property
    def passed(self) -> bool:
        """Whether there is anything to judge."""
        return not self.reasons


_NAMES: Mapping[str | None, str] = {"webp": "WebP", "png": "PNG"}


def learnt(density: Density, images: Tensor, *, training: Sequence[Any] = (), batch_size: int = 128) -> Learnt:
    """Hold a density against the uniform one, a codec, its base and its own curve.

    Args:
        density: of images, on any device.
        images: normal ones that it was not trained on, ``[N, C, H, W]`` in [0, 1].
        training: reports of its training, as the provenance of a detector has them.
        batch_size: images at a time.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 8, 8), steps=1, hidden=4)
        >>> found = learnt(density, torch.zeros(9, 1, 8, 8))
        >>> found.passed, found.reasons[0][:44]
        (False, 'it needs 11.24 bits per dimension for normal')
    """
    codec = next((name for name in ("webp", "png") if name in codecs()), None)
    latents = isinstance(density, FlowDensity) and type(density.flow.base) is StandardNormal
    names = ["log_prob", *(["log_prob_latent"] if latents else []), *([f"complexity_{codec}"] if codec else [])]
    modes = [(module, module.training) for module in density.modules()]
    density.eval()  # a layer that starts from data would take these images for its first batch
    try:
        with torch.no_grad():
            found = gather(density, images, names, batch_size=batch_size)
    finally:
        for module, mode in modes:
            module.training = mode
    dimensions = density.dimensions
    return Learnt(
        bits=bits_per_dim(found["log_prob"], dimensions).mean().item(),
        codec=codec,
        codec_bits=found[f"complexity_{codec}"].mean().item() / dimensions if codec else None,
        latent_gap=found["log_prob_latent"].mean().item() / dimensions + _ENTROPY if latents else None,
        falling=_falling(training),
    )


_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
"""Of a standard normal variable, nats."""


def _falling(training: Sequence[Any]) -> float | None:
    """Relative gain of the last epoch of the first run, where it was not ended by a lack of gain."""
    if not training or training[0].get("stopped_by") == "patience":
        return None
    losses = [(each["epoch"], each["validation_loss"]) for each in training[0].get("history", ())]
    by_epoch = [loss for _, loss in sorted({epoch: loss for epoch, loss in losses if loss is not None}.items())]
    if len(by_epoch) < 2 or not by_epoch[-2] > 0:
        return None
    gain = (by_epoch[-2] - by_epoch[-1]) / by_epoch[-2]
    return gain if gain > FALLING else None
