"""Sizes that lossless codecs make of images, by the Pillow that is installed."""

import io
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

Codec = Literal["png", "webp", "jpeg2000"]
CODECS: tuple[Codec, ...] = get_args(Codec)
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
    return tuple(name for name in CODECS if offered[name])


def codec_versions() -> dict[str, str | None]:
    """Versions of what the sizes depend on.

    >>> sorted(codec_versions())
    ['openjpeg', 'pillow', 'webp', 'zlib']
    """
    import PIL

    return {
        "pillow": PIL.__version__,
        "zlib": features.version("zlib"),
        "webp": features.version("webp"),
        "openjpeg": features.version("jpg_2000"),
    }


def compressed_bits(image: NDArray[np.uint8], codec: str) -> int:
    """Bits of an image ``[C, H, W]``; of other than 1 or 3 channels, the bits of its channels' gray images together.

    >>> compressed_bits(np.zeros((1, 8, 8), np.uint8), "png") < 1000
    True
    """
    if len(image) not in (1, 3):
        return sum(compressed_bits(channel[None], codec) for channel in image)
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    if codec == "webp" and len(image) == 1:  # WebP knows only colour; its colour transform makes gray cheap
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **_SAVE_OPTIONS[codec])
    return 8 * buffer.tell()
