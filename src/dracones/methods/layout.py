"""What images look like from afar: the density of the leading principal components of the training images."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from dracones.images import ImageCollection

_SIDE = 32
"""Blocks are averaged until the shorter side has between so many places and twice as many: layout is coarse."""
_MOST_COMPONENTS = 64
_MOST_IMAGES = 10_000
_IMAGES_A_COMPONENT = 10
_ROUNDS = 16
_BESIDE = 16
"""Directions that the iteration follows beside those that are kept: they take the error of the last ones."""
_ROUNDING = 1 / 255 / 12**0.5


class Layout(nn.Module):
    r"""log N of an image's k leading principal components, nats: which broad patterns it is made of, and how strongly.

    .. math:: \ell(x) = -\tfrac12 \sum_{i \le k} \big( z_i^2 + \log 2 \pi \lambda_i \big), \quad
        z_i = v_i^\top (x - \mu) / \sqrt{\lambda_i}

    with the eigenvalues :math:`\lambda_i` and eigenvectors :math:`v_i` of the training images' covariance. A flow of
    pixels learns local correlations and nearly ignores how an image is laid out; these components are little else.
    Alone the density falls into the flow's own trap, plain images are likely; the rule `auto` takes what an image's own
    statistics explain out of it.

    k is 64, less where images are few (ten for each component) or small (four numbers for each). Images larger than 32
    pixels are averaged in blocks first. Components are found by subspace iteration (Halko, Martinsson and Tropp 2011,
    "Finding structure with randomness", algorithm 4.4).

    Args:
        image_shape: channels, height, width.

    Example:
        >>> from dracones.images import open_images
        >>> ramps = torch.rand(100, 1, 1, 1) * torch.linspace(0, 1, 8)[None, None, None] * torch.ones(1, 1, 8, 1)
        >>> layout = Layout((1, 8, 8))
        >>> layout.fit(open_images(ramps))
        >>> normal, turned = layout(torch.stack([ramps[0], ramps[0].transpose(1, 2)]))
        >>> bool(normal > turned)
        True
    """

    mean: Tensor
    basis: Tensor
    deviation: Tensor

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.block = max(1, min(height, width) // _SIDE)
        self.dims = channels * (height // self.block) * (width // self.block)
        # Their sizes follow the images of the fit, and the file.
        for name in ("mean", "basis", "deviation"):
            self.register_buffer(name, torch.empty(0))

    @torch.no_grad()
    def fit(self, images: ImageCollection, *, batch_size: int = 128) -> None:
        """Take mean and components from training images, 10,000 of them at most, evenly in their order.

        Raises:
            ValueError: fewer than two images.
        """
        if len(images) < 2:
            raise ValueError(f"layout: principal components need at least 2 images; got {len(images)}")
        device = self.mean.device
        places = torch.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).round().long().numpy()
        batches = images.subset(places).batches(batch_size)
        rows = torch.cat([self._rows(batch.images.float()) for batch in batches])
        self.mean = rows.mean(dim=0)
        rows -= self.mean
        count = max(1, min(_MOST_COMPONENTS, self.dims // 4, len(rows) // _IMAGES_A_COMPONENT))
        basis, spread = leading_components(rows, count)
        self.mean, self.basis = self.mean.to(device), basis.contiguous().to(device)
        # A direction in which nothing moves but the rounding to 256 levels has no spread of its own.
        self.deviation = spread.clamp_min(_ROUNDING).to(device)

    def forward(self, images: Tensor) -> Tensor:
        """Nats ``[B]`` of images ``[B, C, H, W]`` in [0, 1]."""
        white = ((self._rows(images) - self.mean) @ self.basis) / self.deviation
        constant = self.deviation.log().sum() + 0.5 * len(self.deviation) * math.log(2 * math.pi)
        return -0.5 * white.square().sum(dim=1) - constant

    def _rows(self, images: Tensor) -> Tensor:
        return (avg_pool2d(images, self.block) if self.block > 1 else images).flatten(1)


def leading_components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The leading eigenvectors ``[D, count]`` of centred rows ``[N, D]``, and the deviations ``[count]`` along them.

    >>> rows = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> basis, deviation = leading_components(rows, 1)
    >>> basis.abs().round(decimals=4).flatten().tolist(), round(deviation.item(), 4)
    ([1.0, 0.0], 2.4495)
    """
    wide = min(count + _BESIDE, *rows.shape)
    # Drawn from a generator of its own: equal images give equal components.
    basis = torch.randn(rows.shape[1], wide, generator=torch.Generator().manual_seed(0), dtype=rows.dtype)
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    _, singular, turned = torch.linalg.svd(rows @ basis, full_matrices=False)
    return (basis @ turned.T)[:, :count], singular[:count] / (len(rows) - 1) ** 0.5
