"""Multi-scale flows: part of the channels leaves after each level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from dracones.flows.bijection import Bijection, Pattern, spread
from dracones.flows.chain import Chain
from dracones.flows.places import at_level
from dracones.flows.trace import Placement, TraceStep


class MultiScale(Bijection):
    """Levels one after another; after each but the last, half of the channels is factored out as latents.

    Dinh et al. 2017, section 3.6. The first `keep[i]` channels after level i go on (default: half of them), the others
    are a latent of their own. `encode_levels` gives the latents, `decode_levels` takes them all back: nothing is drawn
    anew. `encode` gives the same values in the layout of x, every latent at the pixels it came from.

    Example:
        >>> from dracones.flows import Squeeze
        >>> flow = MultiScale(Squeeze(), Squeeze())
        >>> latents, log_dets = flow.encode_levels(torch.zeros(1, 1, 4, 4))
        >>> [tuple(z.shape) for z in latents]
        [(1, 2, 2, 2), (1, 8, 1, 1)]
    """

    def __init__(self, *levels: Bijection, keep: Sequence[int] | None = None) -> None:
        super().__init__()
        if not levels:
            raise ValueError("MultiScale: expected at least one level; got none")
        if keep is not None and len(keep) != len(levels) - 1:
            raise ValueError(
                f"MultiScale: expected one number of kept channels per level but the last, {len(levels) - 1}; "
                f"got {len(keep)}"
            )
        self.levels = nn.ModuleList(levels)
        self.keep = None if keep is None else tuple(keep)
        self.context_features = max(level.context_features for level in levels)

    @property
    @override
    def x_pattern(self) -> Pattern:
        first: Bijection = self.levels[0]  # type: ignore[assignment]
        return first.x_pattern

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        latents, log_dets = self.encode_levels(x, context)
        return self.levels_to_image(latents), torch.stack(log_dets).sum(0)

    @override
    def _encode_map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = x.shape[2:]
        total, latents = x.new_zeros(x.shape[0], *size), []
        for index, level in enumerate(self._levels()):
            with at_level(index):
                x, shares = level.encode_map(x, context)
            total = total + spread(shares, size)
            if index < len(self.levels) - 1:
                x, factored_out = self._split(index, x)
                latents.append(factored_out)
        return self.levels_to_image((*latents, x)), total

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.decode_levels(self.image_to_levels(z), context)

    def encode_levels(self, x: Tensor, context: Tensor | None = None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """One latent and one log-det per level; the last latent is what went through all levels."""
        self._check("encode", x, self.x_pattern, context)
        latents, log_dets = [], []
        for index, level in enumerate(self._levels()):
            with at_level(index):
                x, log_det = level.encode(x, context)
            log_dets.append(log_det)
            if index < len(self.levels) - 1:
                x, factored_out = self._split(index, x)
                latents.append(factored_out)
        return (*latents, x), tuple(log_dets)

    def decode_levels(self, latents: tuple[Tensor, ...], context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and encode's log-det, exactly, from all latents."""
        *factored_out, x = self._expect_levels(latents, len(self.levels))
        total = x.new_zeros(x.shape[0])
        for index, level in reversed(list(enumerate(self._levels()))):
            x = torch.cat([x, factored_out[index]], 1) if index < len(factored_out) else x
            with at_level(index):
                x, log_det = level.decode(x, context)
            total = total + log_det
        return x, total

    def levels_to_image(self, latents: tuple[Tensor, ...], *, unmix: bool = False) -> Tensor:
        """All latents in the layout of x."""
        *factored_out, image = self._expect_levels(latents, len(self.levels))
        for index, level in reversed(list(enumerate(self._levels()))):
            image = torch.cat([image, factored_out[index]], 1) if index < len(factored_out) else image
            image = level.to_image_layout(image, unmix=unmix)
        return image

    def image_to_levels(self, image: Tensor) -> tuple[Tensor, ...]:
        """Inverse of `levels_to_image`."""
        latents = []
        for index, level in enumerate(self._levels()):
            image = level.to_latent_layout(image)
            if index < len(self.levels) - 1:
                image, factored_out = self._split(index, image)
                latents.append(factored_out)
        return (*latents, image)

    def trace(self, x: Tensor, context: Tensor | None = None) -> list[TraceStep]:
        """The levels' steps in order, each with its level."""
        steps: list[TraceStep] = []
        placements: tuple[Placement, ...] = ()
        for index, level in enumerate(self._levels()):
            with at_level(index):
                inner = level.trace(x, context)
                x, _ = level.encode(x, context)
            steps += [step.inside(f"level{index}", index, placements) for step in inner]
            if index < len(self.levels) - 1:
                x, factored_out = self._split(index, x)
                placements = (_rejoin(factored_out), _undo(level), *placements)
        return steps

    def _levels(self) -> list[Bijection]:
        return list(self.levels)  # type: ignore[arg-type]

    def _split(self, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        keep = x.shape[1] // 2 if self.keep is None else self.keep[index]
        if not 0 < keep < x.shape[1]:
            raise ValueError(
                f"MultiScale: level {index} leaves {x.shape[1]} channels and {keep} of them should go on; expected at "
                "least one to go on and one to leave"
            )
        return x[:, :keep], x[:, keep:]

    @override
    def extra_repr(self) -> str:
        return "keep=half" if self.keep is None else f"keep={self.keep}"


class FactorOut(MultiScale):
    """Only the first `keep` channels (default: half) go through the inner bijection; the others are latents already.

    Example:
        >>> from dracones.flows import ActNorm
        >>> latents, _ = FactorOut(ActNorm(1)).encode_levels(torch.zeros(2, 3))
        >>> [tuple(z.shape) for z in latents]
        [(2, 2), (2, 1)]
    """

    def __init__(self, inner: Bijection, keep: int | None = None) -> None:
        super().__init__(Chain(), inner, keep=None if keep is None else (keep,))


def _undo(level: Bijection) -> Placement:
    return lambda value, _fill, unmix: level.to_image_layout(value, unmix=unmix)


def _rejoin(factored_out: Tensor) -> Placement:
    def place(value: Tensor, fill: str, unmix: bool) -> Tensor:  # noqa: ARG001
        other = factored_out if fill == "latent" else torch.zeros_like(factored_out)
        return torch.cat([value, other.to(value.dtype)], 1)

    return place
