"""The VAE's two networks, of the DCGAN kind: strided convolutions down to a vector, transposed ones back up."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def stage_sizes(height: int, width: int, stages: int) -> list[tuple[int, int]]:
    """Image sizes before and after each halving; odd sides are rounded down.

    >>> stage_sizes(28, 28, 3)
    [(28, 28), (14, 14), (7, 7), (3, 3)]
    """
    return [(height >> stage, width >> stage) for stage in range(stages + 1)]


class Encoder(nn.Sequential):
    """[B, C, H, W] in [-1, 1] to [B, 2·latents]: mean and log deviation of the posterior.

    Each stage is a 4×4 convolution of stride 2, batch normalisation and ReLU, the first ``width`` wide, each next
    twice as wide. With no stage it is one linear map.
    """

    def __init__(self, image_shape: tuple[int, int, int], *, latents: int, width: int, stages: int) -> None:
        channels, height, side = image_shape
        layers: list[nn.Module] = []
        for stage in range(stages):
            inputs = channels if stage == 0 else width << (stage - 1)
            layers += [
                nn.Conv2d(inputs, width << stage, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width << stage),
                nn.ReLU(),
            ]
        rows, columns = stage_sizes(height, side, stages)[-1]
        features = width << (stages - 1) if stages else channels
        super().__init__(*layers, nn.Flatten(), nn.Linear(features * rows * columns, 2 * latents))
        _initialise(self)


class Decoder(nn.Module):
    """[B, latents] to the parameters of a pixel distribution, [B, C, outputs, H, W]: the encoder's mirror image."""

    def __init__(
        self, image_shape: tuple[int, int, int], *, latents: int, width: int, stages: int, outputs: int
    ) -> None:
        super().__init__()
        self.image_shape, self.outputs = image_shape, outputs
        channels, height, side = image_shape
        sizes = stage_sizes(height, side, stages)[::-1]
        features = [width << stage for stage in reversed(range(stages))] + [channels * outputs]
        self.start = (features[0], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(latents, features[0] * sizes[0][0] * sizes[0][1])]
        layers.append(nn.Unflatten(1, self.start))
        for (inputs, maps), size in zip(pairwise(features), sizes[1:], strict=True):
            odd = (size[0] % 2, size[1] % 2)
            layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
            layers += [nn.ConvTranspose2d(inputs, maps, 4, 2, 1, output_padding=odd)]
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, latent: Tensor) -> Tensor:
        """Parameters for each latent vector."""
        parameters: Tensor = self.layers(latent).unflatten(1, (self.image_shape[0], self.outputs))
        return parameters


def _initialise(network: nn.Module) -> None:
    """DCGAN's weights: normal with deviation 0.02; batch normalisation's about one."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


def normal_draws(count: int, size: int, *, seed: int) -> Tensor:
    """A fixed table [count, size] of standard normal draws.

    >>> bool((normal_draws(2, 3, seed=0) == normal_draws(2, 3, seed=0)).all())
    True
    """
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
