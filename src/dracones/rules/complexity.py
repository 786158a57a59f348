"""Input complexity: the bits a general lossless codec needs, and the likelihood minus what it explains.

Codecs are functions of the image alone. Without a codec's help a flow's likelihood is ruled by how simple an
image is; S(x) = NLL_bits(x) - L(x) takes that part away (Serra et al. 2020, "Input complexity and out-of-
distribution detection with likelihood-based generative models", eq. 3; a likelihood ratio against the codec).
"""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from dracones.rules.rule import Rule, register

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "quality": 100, "method": 4},
    "jpeg2000": {"format": "JPEG2000", "irreversible": False},
}


def codecs() -> tuple[str, ...]:
    """The lossless codecs that the installed Pillow offers.

    >>> "png" in codecs()
    True
    """
    offered = {"png": features.check("zlib"), "webp": features.check("webp"), "jpeg2000": features.check("jpg_2000")}
    return tuple(name for name in _SAVE_OPTIONS if offered[name])


def complexity(images: Tensor, codec: str = "webp") -> Tensor:
    """Compressed size of 8-bit images in bits [B]; smaller = simpler.

    `images` are [B, C, H, W] in [0, 1] with 1 or 3 channels (for another number of channels the bits of the
    channels' gray images are added). The size of a header is the same for all images and stays in.

    Raises `ValueError` for a codec that is unknown or that this Pillow lacks.

    >>> flat, noise = torch.zeros(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    >>> bool(complexity(flat) < complexity(noise))
    True
    """
    if codec not in codecs():
        raise ValueError(f"codec {codec!r} is not to be had; this Pillow offers {', '.join(codecs())}")
    levels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    if levels.ndim != 4:
        raise ValueError(f"complexity: expected images [B, C, H, W], got {list(images.shape)}")
    count_bits = _bits_counter(codec)
    if len(levels) < 64:
        sizes = [count_bits(image) for image in levels]
    else:  # the codecs release the interpreter's lock
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            sizes = list(pool.map(count_bits, levels))
    return torch.tensor(sizes, dtype=torch.float64, device=images.device)


def _bits_counter(codec: str) -> Callable[[NDArray[np.uint8]], int]:
    options = _SAVE_OPTIONS[codec]

    def count(image: NDArray[np.uint8]) -> int:
        if len(image) not in (1, 3):
            return sum(count(channel[None]) for channel in image)
        pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        if codec == "webp" and len(image) == 1:  # WebP knows only colour; its colour transform makes gray cheap
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, **options)
        return 8 * buffer.tell()

    return count


@register("complexity")
class Complexity(Rule):
    """Negative log-likelihood in bits less the bits of a lossless codec (Serra et al. 2020, eq. 3).

    Score: -log2 P(x) - L(x). Needs no fit: both sides are bits.

    >>> rule = Complexity(codec="png")
    >>> rule.score({"log_prob": torch.tensor([-100.0]), "complexity_png": torch.tensor([80.0])})
    tensor([64.2695], dtype=torch.float64)
    """

    def __init__(self, *, codec: str = "webp") -> None:
        super().__init__()
        if codec not in _SAVE_OPTIONS:
            raise ValueError(f"complexity: unknown codec {codec!r}; known are {', '.join(_SAVE_OPTIONS)}")
        self.codec = codec
        self.requires = ("log_prob", f"complexity_{codec}")

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        bits = -statistics["log_prob"] / float(np.log(2))
        return bits - statistics[f"complexity_{self.codec}"]
