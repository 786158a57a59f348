"""Bijections one after another, and the other way round."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from typing_extensions import override

from dracones.flows.autodiff import plain_autograd
from dracones.flows.bijection import Bijection, Pattern, spread
from dracones.flows.constant_memory import encode_with_constant_memory
from dracones.flows.places import at_layer
from dracones.flows.trace import Placement, TraceStep

MEMORY = ("standard", "constant")


class Chain(Bijection):
    """`encode` runs the bijections first to last and adds their log-dets; `decode` runs them last to first.

    `memory="constant"` trains in memory that does not grow with the number of layers: backward recomputes each layer's
    input from its output (Gomez et al. 2017) instead of keeping it, for one more evaluation of every conditioner.
    Every layer qualifies whose `decode` is an exact inverse and that gives the same result when run twice: couplings
    (BatchNorm inside conditioners included, its running statistics are updated once), ActNorm, 1×1 convolutions,
    permutations, squeezes, logit, nested chains. Dropout in a conditioner does not, and is refused; so
    is a batch whose inputs cannot be recomputed to a thousandth. Second derivatives and function transforms take the
    memory of the standard way.

    Raises ValueError or TypeError for an error in a layer, with the layer's place in front.

    Example:
        >>> from dracones.flows import ActNorm, Permutation
        >>> chain = Chain(ActNorm(3), Permutation.reversed(3)).eval()
        >>> chain.encode(torch.tensor([[1., 2., 3.]]))[0]
        tensor([[3., 2., 1.]], grad_fn=<IndexSelectBackward0>)
    """

    def __init__(self, *bijections: Bijection, memory: str = "standard") -> None:
        super().__init__()
        if memory not in MEMORY:
            raise ValueError(f"Chain: expected memory to be one of {', '.join(MEMORY)}; got {memory!r}")
        self.layers = nn.ModuleList(bijections)
        self.memory = memory
        self.context_features = max((layer.context_features for layer in bijections), default=0)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.layers)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Bijection:
        return self.layers[index]  # type: ignore[return-value]

    @property
    @override
    def x_pattern(self) -> Pattern:
        return self[0].x_pattern if len(self) else (...,)

    @property
    @override
    def z_pattern(self) -> Pattern:
        return self[-1].z_pattern if len(self) else (...,)

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.memory == "constant" and torch.is_grad_enabled() and plain_autograd():
            return encode_with_constant_memory(list(self), x, context)
        return self._run(x, context, len(self))

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for index in reversed(range(len(self))):
            with at_layer(index, self[index]):
                z, log_det = self[index].decode(z, context)
            total = total + log_det
        return z, total

    def _run(self, x: Tensor, context: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for index, layer in enumerate(list(self)[:count]):
            with at_layer(index, layer):
                x, log_det = layer.encode(x, context)
            total = total + log_det
        return x, total

    @override
    def _encode_map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        size = x.shape[2:]
        total = x.new_zeros(x.shape[0], *size)
        for index, layer in enumerate(self):
            with at_layer(index, layer):
                x, shares = layer.encode_map(x, context)
            total = total + spread(shares, size)
        return x, total

    def encode_levels(self, x: Tensor, context: Tensor | None = None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The last bijection's levels; what comes before it counts towards the first level."""
        if not len(self):
            return super().encode_levels(x, context)
        self._check("encode", x, self.x_pattern, context)
        if type(self[-1]).encode_levels is Bijection.encode_levels:
            return super().encode_levels(x, context)
        x, before = self._run(x, context, len(self) - 1)
        with at_layer(len(self) - 1, self[-1]):
            latents, log_dets = self[-1].encode_levels(x, context)
        return latents, (log_dets[0] + before, *log_dets[1:])

    def decode_levels(self, latents: tuple[Tensor, ...], context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inverse of `encode_levels`, exact from all latents."""
        if not len(self):
            return super().decode_levels(latents, context)
        with at_layer(len(self) - 1, self[-1]):
            x, total = self[-1].decode_levels(latents, context)
        for index in reversed(range(len(self) - 1)):
            with at_layer(index, self[index]):
                x, log_det = self[index].decode(x, context)
            total = total + log_det
        return x, total

    def to_image_layout(self, z: Tensor, *, unmix: bool = False) -> Tensor:
        """Undo the position moves of all layers, with ``unmix`` also their mixing of channels."""
        for layer in list(self)[::-1]:
            z = layer.to_image_layout(z, unmix=unmix)
        return z

    def to_latent_layout(self, x: Tensor) -> Tensor:
        """Apply the position moves of all layers."""
        for layer in self:
            x = layer.to_latent_layout(x)
        return x

    def levels_to_image(self, latents: tuple[Tensor, ...], *, unmix: bool = False) -> Tensor:
        """All latents in the layout of x."""
        if not len(self):
            return super().levels_to_image(latents)
        image = self[-1].levels_to_image(latents, unmix=unmix)
        for layer in list(self)[-2::-1]:
            image = layer.to_image_layout(image, unmix=unmix)
        return image

    def image_to_levels(self, image: Tensor) -> tuple[Tensor, ...]:
        """Inverse of `levels_to_image`."""
        if not len(self):
            return super().image_to_levels(image)
        for layer in list(self)[:-1]:
            image = layer.to_latent_layout(image)
        return self[-1].image_to_levels(image)

    def trace(self, x: Tensor, context: Tensor | None = None) -> list[TraceStep]:
        """The layers' steps in order."""
        steps: list[TraceStep] = []
        placements: tuple[Placement, ...] = ()
        for index, layer in enumerate(self):
            with at_layer(index, layer):
                inner = layer.trace(x, context)
            steps += [step.inside(str(index), placements=placements) for step in inner]
            x = layer.encode(x, context)[0] if len(inner) != 1 else inner[0].output
            placements = (_undo(layer), *placements)
        return steps


class Inverse(Bijection):
    """The same bijection in the other direction: `encode` is the inner `decode`.

    Example:
        >>> from dracones.flows import Squeeze
        >>> Inverse(Squeeze()).encode(torch.zeros(1, 4, 1, 1))[0].shape
        torch.Size([1, 1, 2, 2])
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection
        self.context_features = bijection.context_features

    @property
    @override
    def x_pattern(self) -> Pattern:
        return self.bijection.z_pattern

    @property
    @override
    def z_pattern(self) -> Pattern:
        return self.bijection.x_pattern

    @override
    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.bijection.decode(x, context)
        return z, -log_det

    @override
    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = self.bijection.encode(z, context)
        return x, -log_det

    def to_image_layout(self, z: Tensor, *, unmix: bool = False) -> Tensor:  # noqa: ARG002
        """The inner move to latent layout; what is mixed stays so."""
        return self.bijection.to_latent_layout(z)

    def to_latent_layout(self, x: Tensor) -> Tensor:
        """The inner move to image layout."""
        return self.bijection.to_image_layout(x)


def _undo(layer: Bijection) -> Placement:
    return lambda value, _fill, unmix: layer.to_image_layout(value, unmix=unmix)
