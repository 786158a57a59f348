"""What every bijection promises, and the checks that are the same for all of them."""

import math
from abc import ABC, abstractmethod
from types import EllipsisType

import torch
from torch import Tensor

from dracones.flows.trace import Layer, TraceStep

Pattern = tuple[int | EllipsisType | None, ...]


class Bijection(Layer, ABC):
    """An invertible map with a known log-determinant, `encode: x -> z` and `decode: z -> x`.

    Both directions return the log-determinant **of encode**, `log|det dz/dx|` in nats, one per sample (`[B]`), at
    the pair (x, z): decoding what was encoded returns the same number, not its negative.

    An implementer writes `_encode` and `_decode`; shapes and dtypes are checked here, once. The duties:

    - `_decode(_encode(x))` is `x`, and both give the same log-det, exact in float64;
    - each sample is treated on its own: nothing depends on who else is in the batch (initialisation aside);
    - all that changes behaviour after loading is a parameter or a buffer;
    - `x_pattern` / `z_pattern` say which event shapes are taken (`None`: any size, `...`: any further dimensions);
    - a layer that moves positions also overrides `to_image_layout` and `to_latent_layout`, one that only mixes
      channels is a `ChannelMixing`;
    - a layer whose log-det differs between positions also overrides `_encode_map`.

    Shapes: `x` and `z` are `[B, C, H, W]` or `[B, D]`; `context` is `[B, P]` or `[B, P, H, W]`, or has a batch of 1
    where it is the same for all samples.
    Raises `ValueError` on a wrong shape or a missing context, `TypeError` on a wrong dtype.
    """

    context_features: int = 0

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to latent: `(z, log_det)`, the log-det in nats, shape `[B]`."""
        self._check("encode", x, self.x_pattern, context)
        return self._encode(x, context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latent to data: `(x, log_det)`, the log-det that `encode(x)` has, shape `[B]`."""
        self._check("decode", z, self.z_pattern, context)
        return self._decode(z, context)

    def encode_map(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `encode`, with each position's share of the log-det, `[B, H, W]` in nats (vectors: `[B]`).

        What a heat map is made of: the shares sum to `encode`'s log-det. Where a layer sees a coarser grid than x, a
        cell's share is spread evenly over the positions it covers.
        """
        self._check("encode_map", x, self.x_pattern, context)
        return self._encode_map(x, context)

    def _encode_map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self._encode(x, context)
        return z, evenly(log_det, x.shape[2:])

    def recompute(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(x, z, log_det) from z: x a new leaf, z and log_det its differentiable functions.

        What `memory="constant"` runs backwards; call it with gradients enabled.
        """
        with torch.no_grad():
            x, _ = self._decode(z, context)
        x = x.detach().requires_grad_()
        return x, *self._encode(x, context)

    @abstractmethod
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]: ...

    @property
    def x_pattern(self) -> Pattern:
        """Event shape that `encode` takes, without the batch dimension."""
        return (...,)

    @property
    def z_pattern(self) -> Pattern:
        """Event shape that `decode` takes, without the batch dimension."""
        return self.x_pattern

    # A density may leave through several doors (`MultiScale`): one latent and one log-det per level.

    def encode_levels(self, x: Tensor, context: Tensor | None = None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """As `encode`, with one latent and one log-det (`[B]`) per level; one level unless factored out."""
        z, log_det = self.encode(x, context)
        return (z,), (log_det,)

    def decode_levels(self, latents: tuple[Tensor, ...], context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inverse of `encode_levels`, exact from all latents: nothing is drawn anew."""
        (z,) = self._expect_levels(latents, 1)
        return self.decode(z, context)

    def _expect_levels(self, latents: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
        if len(latents) != count:
            raise ValueError(
                f"{type(self).__name__}.decode_levels: expected {count} latents, one per level; got {len(latents)}"
            )
        return latents

    # Where things lie in the picture: the same path without any arithmetic.

    def to_latent_layout(self, x: Tensor) -> Tensor:
        """Inverse of `to_image_layout`."""
        return x

    def levels_to_image(self, latents: tuple[Tensor, ...], *, unmix: bool = False) -> Tensor:
        """All latents side by side in the layout of x (`[B, C, H, W]`), values unchanged but for ``unmix``."""
        (z,) = self._expect_levels(latents, 1)
        return self.to_image_layout(z, unmix=unmix)

    def image_to_levels(self, image: Tensor) -> tuple[Tensor, ...]:
        """Inverse of `levels_to_image`."""
        return (self.to_latent_layout(image),)

    def trace(self, x: Tensor, context: Tensor | None = None) -> list[TraceStep]:
        """Encode x and keep, per elementary layer, its input, output and log-det."""
        z, shares = self.encode_map(x, context)
        return [TraceStep(name="", layer=self, input=x, output=z, log_det=sum_events(shares), per_position=shares)]

    def _check(self, verb: str, value: Tensor, pattern: Pattern, context: Tensor | None) -> None:
        if not matches(pattern, value.shape[1:]) or value.dim() < 2:
            raise ValueError(
                f"{type(self).__name__}.{verb}: expected a shape {show_pattern(pattern)}; got {list(value.shape)}"
            )
        self._check_dtype(verb, value)
        if self.context_features and context is None:
            raise ValueError(
                f"{type(self).__name__}.{verb}: expected a context of shape [B, {self.context_features}] or "
                f"[B, {self.context_features}, H, W]; got none"
            )

    def _check_dtype(self, verb: str, value: Tensor) -> None:
        if not value.is_floating_point():
            raise TypeError(
                f"{type(self).__name__}.{verb}: expected a floating-point tensor; got {value.dtype}. "
                "Images are float32 in [0, 1]: divide 8-bit values by 255"
            )
        own = next((p for p in self._parameters.values() if p is not None), None)
        if own is not None and own.dtype != value.dtype and not torch.is_autocast_enabled(value.device.type):
            raise TypeError(
                f"{type(self).__name__}.{verb}: expected {own.dtype} like the layer's parameters; got {value.dtype}. "
                f"Convert one of them, for instance with .to(torch.{str(own.dtype).split('.')[-1]})"
            )


class ChannelMixing(Bijection):
    """A linear bijection that does nothing but mix the channels of each position: `unmix` undoes it by decoding."""

    def to_image_layout(self, z: Tensor, *, unmix: bool = False) -> Tensor:
        """The values as they are; with ``unmix`` as a linear combination of the channels of x."""
        return self.decode(z)[0] if unmix else z


def matches(pattern: Pattern, shape: torch.Size) -> bool:
    """Whether an event shape fits a pattern (`None`: any size; a trailing `...`: any further dimensions)."""
    fixed = pattern[:-1] if pattern and pattern[-1] is ... else pattern
    if len(shape) < len(fixed) or (fixed is pattern and len(shape) != len(fixed)):
        return False
    return all(want is None or want == size for want, size in zip(fixed, shape, strict=False))


def show_pattern(pattern: Pattern) -> str:
    """A pattern as read by people: `[B, 3, *, ...]`."""
    return "[" + ", ".join(["B", *("*" if p is None else "..." if p is ... else str(p) for p in pattern)]) + "]"


def positions(x: Tensor) -> int:
    """Number of positions a channel has: H·W for maps, 1 for vectors."""
    return math.prod(x.shape[2:])


def sum_events(values: Tensor) -> Tensor:
    """Sum over all but the batch dimension: `[B, ...] -> [B]`, in float32 at least."""
    wide = torch.promote_types(values.dtype, torch.float32)
    return values.flatten(1).sum(1, dtype=wide) if values.dim() > 1 else values.to(wide)


def evenly(log_det: Tensor, size: torch.Size) -> Tensor:
    """`[B] -> [B, *size]`: the same share for every position."""
    return (log_det / max(math.prod(size), 1)).view(-1, *(1 for _ in size)).expand(-1, *size)


def spread(shares: Tensor, size: torch.Size) -> Tensor:
    """`[B, h, w] -> [B, H, W]`: each cell's share divided evenly among the positions it covers."""
    if shares.shape[1:] == size:
        return shares
    rows, columns = size[0] // shares.shape[1], size[1] // shares.shape[2]
    return (shares / (rows * columns)).repeat_interleave(rows, 1).repeat_interleave(columns, 2)
