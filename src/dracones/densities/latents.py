"""What the latents of one level look like when they should be white noise."""

import torch
from torch import Tensor

LATENT_STATISTICS = ("autocorrelation", "whiteness")


def autocorrelation(latent: Tensor) -> Tensor:
    """Mean product of neighbours [B] in a latent [B, C, h, w]: zero for white noise, positive for a smooth image.

    A flow maps the images it was trained on to nearly white latents and leaves others' structure visible in them
    (Kirichenko et al. 2020, section 5); the length of z, all that log p(z) sees, can be right all the same.

    >>> autocorrelation(torch.ones(1, 1, 2, 2)).item()
    1.0
    """
    products = _lagged_products(latent)
    return torch.cat([product.flatten(1) for product in products], dim=1).mean(dim=1)


def whiteness(latent: Tensor) -> Tensor:
    """Logarithm of a Box-Pierce statistic [B]: mean over channels and lags of the squared neighbour correlations.

    Reference: Wang, Dai, Wipf and Zhu 2020, "Further Analysis of Outlier Detection with Deep Generative Models"
    (NeurIPS), section 4: a white-noise test on what the model leaves of an image.

    >>> noise = torch.randn(1, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> bool(whiteness(noise) < whiteness(noise.cumsum(dim=-1) / 4))
    True
    """
    squares = []
    for product in _lagged_products(latent):
        count = product.shape[-1] * product.shape[-2]
        squares.append(product.mean(dim=(-1, -2)).square() * count)
    return torch.log(torch.stack(squares).mean(dim=(0, 2)) + 1e-3)


def _lagged_products(latent: Tensor) -> list[Tensor]:
    """z(p) z(p + lag) at the four neighbours (right, below, two diagonals) that the latent has room for."""
    height, width = latent.shape[-2:]
    products = []
    if width > 1:
        products.append(latent[..., :, :-1] * latent[..., :, 1:])
    if height > 1:
        products.append(latent[..., :-1, :] * latent[..., 1:, :])
    if height > 1 and width > 1:
        products.append(latent[..., :-1, :-1] * latent[..., 1:, 1:])
        products.append(latent[..., :-1, 1:] * latent[..., 1:, :-1])
    return products or [latent.square() - 1]
