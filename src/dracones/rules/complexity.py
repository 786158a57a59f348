"""Input complexity: the bits a general lossless codec needs, and the likelihood minus what it explains.

Codecs are functions of the image alone. Without a codec's help a flow's likelihood is ruled by how simple an
image is; S(x) = NLL_bits(x) - L(x) takes that part away (Serra et al. 2020, "Input complexity and out-of-
distribution detection with likelihood-based generative models", eq. 3; a likelihood ratio against the codec).
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dracones.images.codecs import CODECS, Codec, codecs, compressed_bits
from dracones.rules.rule import Rule, register


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
    count_bits = partial(compressed_bits, codec=codec)
    if len(levels) < 64:
        sizes = [count_bits(image) for image in levels]
    else:  # the codecs release the interpreter's lock
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            sizes = list(pool.map(count_bits, levels))
    return torch.tensor(sizes, dtype=torch.float64, device=images.device)


@register("complexity")
class Complexity(Rule):
    """Negative log-likelihood in bits less the bits of a lossless codec (Serra et al. 2020, eq. 3).

    Score: -log2 P(x) - L(x). Needs no fit: both sides are bits.

    >>> rule = Complexity(codec="png")
    >>> rule.score({"log_prob": torch.tensor([-100.0]), "complexity_png": torch.tensor([80.0])})
    tensor([64.2695], dtype=torch.float64)
    """

    def __init__(self, *, codec: Codec = "webp") -> None:
        super().__init__()
        if codec not in CODECS:
            raise ValueError(f"complexity: unknown codec {codec!r}; known are {', '.join(CODECS)}")
        self.codec = codec
        self.requires = ("log_prob", f"complexity_{codec}")

    def _score(self, statistics: dict[str, Tensor]) -> Tensor:
        bits = -statistics["log_prob"] / float(np.log(2))
        return bits - statistics[f"complexity_{self.codec}"]
