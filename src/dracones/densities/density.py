"""What every density of images promises: a log-probability of the 8-bit image, statistics, samples."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dracones.densities.bits import Dequantisation, bits_per_dim, check_unit


class Density(nn.Module, ABC):
    """p(image) over the 256 levels of every pixel.

    An implementer gives
    - `forward(images, names=..., generator=...)`: named tensors [B], among them `log_prob`, in nats of the
      8-bit image (for a density of points of the unit cube: minus D log 256, see `bits`); computes no more
      than the names asked for need, gives the same numbers again when called without a generator, and is a pure
      graph of tensors: `statistics` is the same behind checks;
    - `sample(count, generator=..., temperature=...)`: images [count, C, H, W] in [0, 1];
    - `available_statistics`: the names that `statistics` knows;
    - `log_prob_at(points)`, if the density is one of points of the unit cube: nats [B], differentiable.

    Images are [B, C, H, W] float in [0, 1]. `dequantise(images, generator=...)` gives the points. `config`
    (set by `densities.create`) is the JSON-able record from which `create(**config)` builds the same module.
    """

    config: dict[str, Any]

    def __init__(self, image_shape: Sequence[int], *, seed: int = 0) -> None:
        super().__init__()
        shape = tuple(int(side) for side in image_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"{type(self).__name__}: image_shape must be (channels, height, width), got {image_shape}")
        self.image_shape: tuple[int, int, int] = (shape[0], shape[1], shape[2])
        self.config = {}
        self.dequantise = Dequantisation(self.image_shape, seed=seed)

    @property
    def dimensions(self) -> int:
        """Number of pixels times channels: the D of bits per dimension."""
        channels, height, width = self.image_shape
        return channels * height * width

    @property
    @abstractmethod
    def available_statistics(self) -> tuple[str, ...]:
        """Names that `statistics` can give."""

    @abstractmethod
    def forward(
        self, images: Tensor, *, names: Sequence[str], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The named numbers [B] of images that somebody has checked, at least one."""

    def statistics(
        self,
        images: Tensor,
        *,
        names: Sequence[str] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Named numbers per image [B]; all available ones when `names` is None. Log terms are in nats.

        Raises `ValueError` for an unknown name, images of another shape, values outside [0, 1], or images whose
        gradient is asked for: they are rounded to levels, so it would be zero everywhere.
        """
        wanted = self.check_names(names)
        self.check_images(images)
        if images.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{type(self).__name__}: images are rounded to 256 levels, so their gradient would be zero; give "
                "points of the unit cube to log_prob_at(), or images.detach()"
            )
        check_unit(images)
        if not len(images):
            return {name: images.new_zeros(0) for name in wanted}
        found: dict[str, Tensor] = self(images, names=wanted, generator=generator)
        return found

    @abstractmethod
    def sample(self, count: int, *, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Images [count, C, H, W] in [0, 1] drawn from the density; below 1 the temperature draws likelier ones."""

    def log_prob(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """log P of the 8-bit images in nats [B]."""
        return self.statistics(images, names=("log_prob",), generator=generator)["log_prob"]

    def log_prob_at(self, points: Tensor) -> Tensor:  # noqa: ARG002 (a refusal, not a computation)
        """Nats [B] of points of the unit cube [B, C, H, W], differentiable; -D log 256 is included.

        For the analyses that need gradients with respect to the image. Raises `TypeError` for a density that
        is one of levels, not of points.
        """
        raise TypeError(
            f"{type(self).__name__} is a density of pixel levels, not of points: it has no gradient with"
            " respect to the image; use a flow (glow, realnvp) for this analysis"
        )

    def training_loss(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean bits per dimension of a batch, freshly dequantised when given a generator."""
        return bits_per_dim(self.log_prob(images, generator=generator), self.dimensions).mean()

    def bits_per_dim(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Bits per dimension [B] of 8-bit images; smaller is likelier."""
        return bits_per_dim(self.log_prob(images, generator=generator), self.dimensions)

    def check_images(self, images: Tensor) -> None:
        """Raise `ValueError` unless `images` has the shape [B, *image_shape]."""
        if tuple(images.shape[1:]) != self.image_shape or images.ndim != 4:
            raise ValueError(
                f"{type(self).__name__}: expected images [B, {', '.join(map(str, self.image_shape))}],"
                f" got {list(images.shape)}; resize both sides of a comparison to the shape trained on"
            )

    def check_names(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """The names asked for, all of them when None; raises `ValueError` for an unknown one."""
        known = self.available_statistics
        if names is None:
            return known
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"{type(self).__name__} cannot give the statistics {unknown}; it gives {list(known)}")
        return tuple(names)
