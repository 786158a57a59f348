"""Large images in overlapping tiles, and the tiles' maps blended into one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from dracones.images.pixels import as_float


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tiles of one `size` that overlap by at least `overlap` pixels and cover any image.

    Where tiles overlap, their maps are averaged with weights that fall linearly to each tile's rim (never to zero), so
    that no seam shows. Weights sum to one at every pixel: a map that depends on the pixel alone comes back as it was.
    Tiles are spread evenly; an image smaller than a tile is mirrored at its edges and the map is cut back.

    Example:
        >>> tiling = Tiling(size=(64, 64), overlap=16)
        >>> len(tiling.places(100, 200))
        8
        >>> image = torch.rand(3, 100, 200)
        >>> score = lambda tiles: tiles.mean(1)
        >>> torch.allclose(tiling.map(image, score), image.mean(0))
        True
    """

    size: tuple[int, int]
    overlap: int = 0

    def __post_init__(self) -> None:
        if min(self.size) < 1 or not 0 <= self.overlap < min(self.size):
            raise ValueError(f"tiles of {self.size} with overlap {self.overlap}: 0 <= overlap < both sides is expected")

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of every tile of an image of that size, row by row."""
        return list(product(self._starts(height, 0), self._starts(width, 1)))

    def tiles(self, image: Tensor, batch_size: int = 8) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
        """Tiles `[b, C, h, w]`, float32 in [0, 1], with their places; `image` `[C, H, W]` may stay uint8 or uint16."""
        if image.ndim != 3:
            raise ValueError(f"an image of shape {tuple(image.shape)}; one image [C, H, W] is expected")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: at least 1 is expected")
        places = self.places(image.shape[1], image.shape[2])
        for start in range(0, len(places), batch_size):
            chosen = places[start : start + batch_size]
            yield torch.stack([self.cut(image, top, left) for top, left in chosen]), chosen

    def map(self, image: Tensor, score: Callable[[Tensor], Tensor], batch_size: int = 8) -> Tensor:
        """The map `[H, W]` of a whole image `[C, H, W]`, from `score`: tiles `[b, C, h, w]` to maps `[b, h, w]`.

        Besides the image and its map, memory holds one batch of tiles.

        Raises:
            ValueError: `score` gives maps of another size than its tiles.
        """
        height, width = image.shape[1:]
        rows, columns = self._weights(height, 0), self._weights(width, 1)
        whole = torch.zeros(max(height, self.size[0]), max(width, self.size[1]))
        for tiles, places in self.tiles(image, batch_size):
            maps = score(tiles)
            if maps.shape != (len(tiles), *self.size):
                raise ValueError(
                    f"maps of shape {tuple(maps.shape)} for tiles of {self.size}; [b, h, w] of that size is expected"
                )
            for one, (top, left) in zip(maps.detach().to("cpu", torch.float32), places, strict=True):
                weight = rows[top][:, None] * columns[left][None, :]
                whole[top : top + self.size[0], left : left + self.size[1]] += one * weight
        return whole[:height, :width].clone() if whole.shape != (height, width) else whole

    def _starts(self, length: int, axis: int) -> list[int]:
        size = self.size[axis]
        if length <= size:
            return [0]
        count = -(-(length - self.overlap) // (size - self.overlap))
        return [round(i * (length - size) / (count - 1)) for i in range(count)]

    def _weights(self, length: int, axis: int) -> dict[int, Tensor]:
        """Start of a tile -> its weight at each of its rows (or columns); the weights of all tiles sum to 1 everywhere.

        The grid of tiles is a product, so are its weights: normalising each axis normalises the whole.
        """
        size, starts = self.size[axis], self._starts(length, axis)
        rise = torch.arange(1, size + 1, dtype=torch.float64)
        tent = torch.minimum(rise, rise.flip(0)).clamp(max=max(1, self.overlap))
        total = torch.zeros(max(length, size), dtype=torch.float64)
        for start in starts:
            total[start : start + size] += tent
        return {start: (tent / total[start : start + size]).float() for start in starts}

    def cut(self, image: Tensor, top: int, left: int) -> Tensor:
        """One tile `[C, h, w]`, float32 in [0, 1], of an image `[C, H, W]`, mirrored at its edges if too small."""
        tile = as_float(image[:, top : top + self.size[0], left : left + self.size[1]])
        if tuple(tile.shape[1:]) == self.size:
            return tile
        # Mirrored and not repeated: an edge drawn out to stripes is a texture that no normal image has.
        return tile[:, _mirrored(tile.shape[1], self.size[0])][:, :, _mirrored(tile.shape[2], self.size[1])]


def _mirrored(length: int, size: int) -> Tensor:
    """Indices `[size]` that run through `length` to its end and back, as often as it takes.

    >>> _mirrored(3, 7).tolist()
    [0, 1, 2, 1, 0, 1, 2]
    """
    period = max(1, 2 * (length - 1))
    places = torch.arange(size) % period
    return torch.minimum(places, period - places) if length > 1 else torch.zeros(size, dtype=torch.long)
