"""A density: a bijection and the distribution of its latents."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dracones.flows.autodiff import plain_autograd
from dracones.flows.bijection import Bijection
from dracones.flows.constant_memory import frozen_running_statistics
from dracones.flows.distributions import Base, StandardNormal
from dracones.flows.trace import TraceStep


@dataclass(frozen=True)
class FlowTerms:
    """What a log-likelihood consists of, in nats. B images, L levels.

    `log_prob = log_prob_latent + log_det` (`[B]`), each the sum of its levels (`[B, L]`).
    """

    log_prob: Tensor
    log_prob_latent: Tensor
    log_det: Tensor
    level_log_prob_latent: Tensor
    level_log_det: Tensor
    latents: tuple[Tensor, ...]


class Flow(nn.Module):
    """`log p(x) = log p(z) + log|det dz/dx|` with `z = encode(x)`.

    `shape` is the shape of one sample of x, needed by `sample` alone: convolutional flows take any height and width.
    Images are `[B, C, H, W]`, vectors `[B, D]`; everything is in nats.

    Example:
        >>> from dracones.flows import ActNorm
        >>> flow = Flow(ActNorm(2), shape=(2,)).eval()
        >>> flow.log_prob(torch.zeros(1, 2))
        tensor([-1.8379], grad_fn=<AddBackward0>)
        >>> flow.sample(3, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    def __init__(self, bijection: Bijection, base: Base | None = None, *, shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.bijection = bijection
        self.base = StandardNormal() if base is None else base
        self.shape = None if shape is None else tuple(shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`log_prob`, so that wrappers that know `forward` alone (DDP) work."""
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-likelihood of x, nats, `[B]`.

        Raises:
            ValueError: x holds NaN; a comparison with the result would be false either way. (Not asked of a graph that
                is being traced.)
        """
        if plain_autograd() and bool(x.isnan().any()):
            rows = x.isnan().flatten(1).any(1).nonzero().flatten().tolist()
            raise ValueError(
                f"Flow: {len(rows)} of {x.shape[0]} samples hold NaN, the first of them sample {rows[0]}; NaN has no "
                "likelihood: leave them out, or look at where they were made"
            )
        latents, log_det = self.encode(x, context)
        total = log_det
        for z in latents:
            total = total + self.base.log_prob(z)
        return total

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        """All latents, one per level, and the log-det `[B]`."""
        self._check_context(context)
        latents, log_dets = self.bijection.encode_levels(x, context)
        return latents, log_dets[0] if len(log_dets) == 1 else torch.stack(log_dets).sum(0)

    def decode(self, latents: tuple[Tensor, ...] | Tensor, context: Tensor | None = None) -> Tensor:
        """The x that these latents came from, exactly. Raises ValueError for a wrong number of latents."""
        latents = (latents,) if isinstance(latents, Tensor) else tuple(latents)
        return self.bijection.decode_levels(latents, context)[0]

    @torch.no_grad()
    def sample(
        self,
        count: int,
        *,
        generator: torch.Generator | None = None,
        shape: tuple[int, ...] | None = None,
        context: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw x: `[count, *shape]`, latents multiplied by the temperature (Kingma and Dhariwal 2018, section 6)."""
        shape = self.shape if shape is None else shape
        if shape is None:
            raise ValueError("Flow.sample: the shape of one sample is not known; give it here or to Flow(shape=...)")
        parameter = next(self.parameters(), torch.empty(0))
        like = torch.empty(count, *shape, dtype=parameter.dtype, device=parameter.device)
        latents = (self.base.sample(z, generator) * temperature for z in self.bijection.image_to_levels(like))
        return self.decode(tuple(latents), context)

    def terms(self, x: Tensor, context: Tensor | None = None) -> FlowTerms:
        """The log-likelihood in its parts, per level."""
        self._check_context(context)
        latents, log_dets = self.bijection.encode_levels(x, context)
        per_level = torch.stack([self.base.log_prob(z) for z in latents], 1)
        level_log_det = torch.stack(log_dets, 1)
        latent, log_det = per_level.sum(1), level_log_det.sum(1)
        return FlowTerms(latent + log_det, latent, log_det, per_level, level_log_det, latents)

    def trace(self, x: Tensor, context: Tensor | None = None) -> list[TraceStep]:
        """Per layer its input, s, t, output and log-det, in order."""
        self._check_context(context)
        return self.bijection.trace(x, context)

    def latents_as_image(self, latents: tuple[Tensor, ...], *, unmix: bool = False) -> Tensor:
        """All latents in the layout of x, each at the pixels it came from, values unchanged.

        With ``unmix`` the 1×1 convolutions, rotations and permutations that the latents went through are undone, so
        that a channel of the result belongs to one of x.
        """
        return self.bijection.levels_to_image(latents, unmix=unmix)

    def log_prob_map(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-likelihood per pixel, `[B, H, W]` in nats (vectors: `[B]`); sums to `log_prob`.

        Each latent's log-density lies at the pixel it came from; a layer's log-det lies where
        `Bijection.encode_map` says.
        """
        if x.dim() == 2:
            return self.log_prob(x, context)
        latents, _ = self.encode(x, context)
        _, shares = self.bijection.encode_map(x, context)
        return self.latents_as_image(tuple(self.base.elementwise_log_prob(z) for z in latents)).sum(1) + shares

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """Let layers that start from data (ActNorm) see a batch, before compiling or distributing the flow."""
        was_training = self.training
        self.train()
        self.encode(x, context)
        self.train(was_training)

    @torch.no_grad()
    def first_non_finite(self, x: Tensor, context: Tensor | None = None) -> str | None:
        """Where x first becomes infinite or NaN (`"level0/3 (AffineCoupling): output"`); None if all is finite.

        A parameter is named before the values it spoils, and a gradient (`"gradient of bijection.layers.3..."`) where
        the values themselves are fine.
        """
        for name, parameter in self.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                return f"parameter {name}"
        if not bool(torch.isfinite(x).all()):
            return "input"
        with frozen_running_statistics([self.bijection]):
            steps = self.trace(x, context)
        for step in steps:
            for what, value in (("output", step.output), ("log_det", step.log_det)):
                if not bool(torch.isfinite(value).all()):
                    return f"{step.name or 'bijection'} ({type(step.layer).__name__}): {what}"
        for name, parameter in self.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                return f"gradient of {name}"
        return None

    def _check_context(self, context: Tensor | None) -> None:
        if context is not None and not self.bijection.context_features:
            raise ValueError(
                f"Flow: got a context of shape {list(context.shape)}, but no layer takes one; "
                "give couplings context_features"
            )
