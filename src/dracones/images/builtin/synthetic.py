"""Images that belong to no photograph: noise as ODIN defines it, and constant colours.

Reference: S. Liang, Y. Li, R. Srikant, "Enhancing the Reliability of Out-of-distribution Image Detection in Neural
Networks", ICLR 2018, section 4.2: each pixel uniform on [0, 1], or Gaussian with mean 0.5 and variance 1, clipped.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from dracones.images.digests import digest_of_array
from dracones.images.sources import ImageSource

Kind = Literal["uniform", "gaussian", "constant"]


class SyntheticSource(ImageSource):
    """Images drawn when asked for: image i depends on the seed and on i alone, so order and batches do not matter.

    `uniform` and `gaussian` are float32; `constant` is one colour of 256 levels a channel, uniform, in every pixel.
    """

    def __init__(self, kind: Kind, count: int, shape: tuple[int, int, int], seed: int = 0) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"no synthetic images called {kind!r}; available: {', '.join(get_args(Kind))}")
        if count < 1 or min(shape) < 1:
            raise ValueError(f"count={count}, shape={shape}: all at least 1 are expected")
        self.kind, self.count, self.image_shape, self.seed = kind, count, shape, seed
        self.name = f"synthetic:{kind}"

    @override
    def __len__(self) -> int:
        return self.count

    @override
    def item_name(self, index: int) -> str:
        return f"{self.name}[{index}]"

    @override
    def read(self, index: int) -> np.ndarray:
        # A counter-based generator starts anywhere at no cost (Salmon et al. 2011).
        draw = np.random.Generator(np.random.Philox(key=np.array([self.seed, index], dtype=np.uint64)))
        channels, height, width = self.image_shape
        if self.kind == "uniform":
            return draw.random((height, width, channels), dtype=np.float32)
        if self.kind == "gaussian":
            noise: np.ndarray = draw.standard_normal((height, width, channels), dtype=np.float32)
            return (noise + 0.5).clip(0, 1)
        return np.broadcast_to(draw.integers(0, 256, channels, dtype=np.uint8), (height, width, channels)).copy()

    @override
    def shape(self, index: int) -> tuple[int, int, int]:
        return self.image_shape

    @override
    def digest(self, index: int) -> bytes:
        return digest_of_array(self.read(index))

    @override
    def block(self, indices: np.ndarray) -> Tensor:
        images = (
            np.stack([self.read(int(i)) for i in indices]) if len(indices) else np.zeros((0, *self.image_shape[1:], 3))
        )
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
