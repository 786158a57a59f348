"""One matrix for the feature vectors of all positions of a level."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MapWhitening(nn.Module):
    r"""`z = (\Sigma + r v I)^{-1/2} (x - mean)` for the vectors of every position of maps `[B, C, h, w]` (ZCA).

    Mean and covariance are of training features over images and positions, v is the mean variance. The symmetric root
    keeps each channel nearest to itself. Unlike a normalisation of each image by its own mean and variance it leaves in
    how far a whole image is from the normal ones. The log-determinant, the same at every position, is left out.

    Args:
        channels: C.
        ridge: r.

    Example:
        >>> maps = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 5 + 2
        >>> whitening = MapWhitening(3, ridge=0.0)
        >>> whitening.fit([maps])
        >>> torch.cov(whitening(maps).movedim(1, 0).flatten(1)).round(decimals=3).abs()
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, channels: int, *, ridge: float) -> None:
        super().__init__()
        self.ridge = ridge
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("matrix", torch.eye(channels))

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and covariance from maps `[B, C, h, w]`, read once, a few at a time.

        Raises:
            ValueError: fewer than two positions.
        """
        # Moments about the first vector: of features far from zero, sums of squares lose their digits.
        about: Tensor | None = None
        total, products, count = torch.zeros(()), torch.zeros(()), 0
        for maps in batches:
            vectors = maps.movedim(1, -1).flatten(0, -2).to("cpu", torch.float64)
            about = vectors[0].clone() if about is None else about
            vectors = vectors - about
            total, products, count = total + vectors.sum(dim=0), products + vectors.T @ vectors, count + len(vectors)
        if about is None or count < 2:
            raise ValueError(f"MapWhitening: a covariance needs at least 2 positions; got {count}")
        mean = total / count
        covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
        variance = covariance.diagonal().mean().item() or 1.0
        values, vectors = torch.linalg.eigh(covariance)
        scales = (values.clamp_min(0) + self.ridge * variance).clamp_min(1e-12 * variance).rsqrt()
        self.mean.copy_(about + mean)
        self.matrix.copy_((vectors * scales) @ vectors.T)

    def forward(self, maps: Tensor) -> Tensor:
        """Whitened maps, of the same shape."""
        centred = maps - self.mean[:, None, None]
        return torch.einsum("dc,bchw->bdhw", self.matrix, centred)
