"""Second derivatives of a log-likelihood at one image: Hessian-vector products, and the gains of a linear flow."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dracones.anatomy.needs import needs_constant_volume
from dracones.anatomy.sides import evaluating
from dracones.densities import Density, FlowDensity
from dracones.flows import ActNorm, Bijection, Chain, Coupling, InvertibleConv1x1, Squeeze


def hessian_vector_products(density: Density, point: Tensor, vectors: Tensor, *, batch_size: int = 32) -> Tensor:
    """H v for each of the vectors, H the Hessian of log p at one point of the unit cube.

    Args:
        density: with `log_prob_at`.
        point: [C, H, W].
        vectors: [N, C, H, W].
        batch_size: products at a time.

    Returns:
        [N, C, H, W], nats per squared unit of the cube.

    Example:
        >>> from dracones import densities
        >>> density = densities.create("glow", image_shape=(1, 4, 4), steps=1, hidden=4, levels=1)
        >>> hessian_vector_products(density, torch.full((1, 4, 4), 0.5), torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    products = []
    with evaluating(density), twice_differentiable(density), torch.enable_grad():
        for part in vectors.split(batch_size):
            x = point.expand(len(part), *point.shape).detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(density.log_prob_at(x).sum(), x, create_graph=True)
            if gradient.requires_grad:
                (product,) = torch.autograd.grad((gradient * part).sum(), x)
            else:  # log p is linear there
                product = torch.zeros_like(x)
            products.append(product.detach())
    return torch.cat(products)


def gradient_at(density: Density, point: Tensor) -> Tensor:
    """∇ log p at one point [C, H, W]."""
    with evaluating(density), torch.enable_grad():
        x = point[None].detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(density.log_prob_at(x).sum(), x)
    return gradient[0].detach()


@contextmanager
def twice_differentiable(density: Density) -> Iterator[None]:
    """Chains of constant memory, whose backward pass has no second derivative, keep their graph inside."""
    chains = [layer for layer in density.modules() if isinstance(layer, Chain)]
    before = [chain.memory for chain in chains]
    for chain in chains:
        chain.memory = "standard"
    try:
        yield
    finally:
        for chain, memory in zip(chains, before, strict=True):
            chain.memory = memory


def published_gains(density: Density) -> Tensor:
    """α of each pixel [C, H, W]: the product over all 1×1 convolutions of their row sums, Π_k Σ_j u_{k,c,j}.

    A channel keeps its number through convolutions and squeezes, as the published formula has it.

    Raises:
        UnsupportedError: anything but a constant-volume Glow.

    Reference:
        Nalisnick et al. (2019), section 5, eq. 6.
    """
    flow = _linear(needs_constant_volume(density, "the published trace formula"), rows_only=True)
    ones = density.dequantise.noise.new_ones(1, *density.image_shape)
    with torch.no_grad():
        latents, _ = flow.flow.encode(ones)
    return flow.flow.latents_as_image(latents)[0]


def linear_gains(density: Density) -> Tensor:
    """|∂z/∂x| of each pixel [C, H, W] with every coupling taken for the identity: the norm of the Jacobian's column.

    All that is left are ActNorms, 1×1 convolutions and squeezes, so every block of pixels that is squeezed into one
    position has the same gains.

    Raises:
        UnsupportedError: anything but a constant-volume Glow.
    """
    flow = _linear(needs_constant_volume(density, "the trace formula"), rows_only=False)
    channels, height, width = density.image_shape
    block = 1
    for layer in flow.flow.modules():
        block *= layer.factor if isinstance(layer, Squeeze) else 1
    blank = density.dequantise.noise.new_zeros(1 + channels * block**2, channels, height, width)
    pixels = [(c, i, j) for c in range(channels) for i in range(block) for j in range(block)]
    for row, (c, i, j) in enumerate(pixels):
        blank[row + 1, c, i, j] = 1
    with torch.no_grad():
        latents, _ = flow.flow.encode(blank)
    flat = torch.cat([latent.flatten(1) for latent in latents], 1)
    norms: Tensor = (flat[1:] - flat[:1]).norm(dim=1).reshape(channels, block, block)
    return norms.repeat(1, height // block, width // block)


class _RowSums(Bijection):
    """Multiplies each channel by the sum of a 1×1 convolution's row."""

    def __init__(self, convolution: InvertibleConv1x1) -> None:
        super().__init__()
        self.register_buffer("sums", convolution.matrix()[0].detach().sum(1))

    def _encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return x * self.get_buffer("sums")[:, None, None].to(x.dtype), x.new_zeros(len(x))

    def _decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return z / self.get_buffer("sums")[:, None, None].to(z.dtype), z.new_zeros(len(z))


def _linear(density: FlowDensity, *, rows_only: bool) -> FlowDensity:
    """A copy without couplings; with ``rows_only`` also without ActNorm, convolutions reduced to their row sums."""
    moved = copy.deepcopy(density).eval()
    for chain in [layer for layer in moved.modules() if isinstance(layer, Chain)]:
        chain.layers = nn.ModuleList(_reduced(layer, rows_only) for layer in chain)
    return moved


def _reduced(layer: Bijection, rows_only: bool) -> Bijection:
    if isinstance(layer, Coupling) or (rows_only and isinstance(layer, ActNorm)):
        return Chain()
    if rows_only and isinstance(layer, InvertibleConv1x1):
        return _RowSums(layer)
    return layer
