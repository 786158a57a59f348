"""What a flow did to an image, layer by layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

Placement = Callable[[Tensor, str, bool], Tensor]
"""Moves a tensor one step towards the layout of the flow's input; the second argument says what to put where the
step itself has nothing ("latent" for the latents factored out before, "zero" for zeros), the third whether the mixing
of channels is undone too."""


class Layer(nn.Module):
    """What a trace knows of a layer: where the entries of its output lie in its input."""

    def to_image_layout(self, z: Tensor, *, unmix: bool = False) -> Tensor:  # noqa: ARG002
        """Move each entry of a latent-shaped tensor to where it came from in x; values unchanged.

        With ``unmix`` a layer that only mixes channels is undone as well, so that a channel of the result is one of x.
        """
        return z


@dataclass(frozen=True)
class TraceStep:
    """One layer's share in encoding a batch.

    `input` and `output` are in the layer's own layout (after squeezes and factor-outs before it). `s` (log-scale) and
    `t` (shift) have that layout too, zero where the layer changes nothing, and are None for layers that have none:
    in a coupling of the form `(x + t) * exp(s)`, `-t` is the flow's prediction of the changed pixels (Kirichenko et
    al. 2020, section 5). `log_det` is `[B]` in nats; `log_det_map` is its share per position, `[B, h, w]` (None: spread
    evenly). `in_image` brings any of them into the layout of the flow's input.
    """

    name: str
    layer: Layer
    input: Tensor
    output: Tensor
    log_det: Tensor
    s: Tensor | None = None
    t: Tensor | None = None
    level: int = 0
    per_position: Tensor | None = None
    placements: tuple[Placement, ...] = ()

    @property
    def log_det_map(self) -> Tensor:
        """Log-det per position of the layer's own layout, `[B, h, w]` (vectors: `[B]`); sums to log_det."""
        if self.per_position is not None:
            return self.per_position
        spatial = self.input.shape[2:]
        even = self.log_det / max(spatial.numel(), 1)
        return even.view(-1, *(1 for _ in spatial)).expand(-1, *spatial)

    def in_image(self, what: str, *, unmix: bool = False) -> Tensor:
        """`"input"`, `"output"`, `"s"` or `"t"` in the layout of the flow's input, `[B, C, H, W]`.

        Positions that left the flow before this layer show their latent for input and output, and 0 for s and t.
        With ``unmix`` the 1×1 convolutions, rotations and permutations before the layer are undone.
        Raises ValueError where the layer has no such thing.
        """
        value = getattr(self, what, None) if what in ("input", "output", "s", "t") else None
        if value is None:
            raise ValueError(f"step {self.name!r} ({type(self.layer).__name__}) has no {what!r}")
        fill = "zero" if what in ("s", "t") else "latent"
        if what == "output":
            value = self.layer.to_image_layout(value, unmix=unmix)
        return self.placed(value, fill, unmix=unmix)

    def placed(self, value: Tensor, fill: str = "zero", *, unmix: bool = False) -> Tensor:
        """Any tensor in the layer's own layout, brought into that of the flow's input as `in_image` does."""
        for place in self.placements:
            value = place(value, fill, unmix)
        return value

    def inside(self, name: str, level: int = 0, placements: tuple[Placement, ...] = ()) -> "TraceStep":
        """This step as seen from the bijection around it."""
        joined = f"{name}/{self.name}" if self.name else name
        return replace(self, name=joined, level=self.level + level, placements=self.placements + placements)
