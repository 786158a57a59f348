"""Bottleneck: everything a conditioner knows of its input, in l numbers."""

from torch import Tensor, nn


class Bottleneck(nn.Module):
    """Two linear maps with nothing between, `C·H·W -> l -> C·H·W` (Kirichenko et al. 2020, section 6: `resnet_ae`).

    `size` is the height and width of the maps, or None for vectors. Raises ValueError unless l is at least 1.
    """

    def __init__(self, channels: int, dimensions: int, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        if dimensions < 1:
            raise ValueError(f"Bottleneck: expected at least 1 dimension; got {dimensions}")
        features = channels if size is None else channels * size[0] * size[1]
        self.shape = (channels,) if size is None else (channels, *size)
        self.narrow = nn.Linear(features, dimensions)
        self.widen = nn.Linear(dimensions, features)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` or `[B, C]` to the same shape. Raises ValueError for another size."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"Bottleneck: expected a shape [B, {', '.join(map(str, self.shape))}]; got {list(x.shape)}"
            )
        widened: Tensor = self.widen(self.narrow(x.flatten(1)))
        return widened.view(x.shape)


def bottleneck_or_nothing(channels: int, dimensions: int | None, size: tuple[int, int] | None, name: str) -> nn.Module:
    """A spatial bottleneck if asked for. Raises ValueError if the size of the maps is not given."""
    if dimensions is None:
        return nn.Identity()
    if size is None:
        raise ValueError(f"{name}: a bottleneck needs the size (H, W) of the maps it sees; give size=(H, W)")
    return Bottleneck(channels, dimensions, size)
