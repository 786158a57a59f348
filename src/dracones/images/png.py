"""PNG with 16 bits and colour, which Pillow cuts to 8 bits without a word: its own decoder, asked twice, keeps all."""

import io
import struct
import zlib

import numpy as np
from PIL import PngImagePlugin

from dracones.images.pixels import on_white

_GRAY_ALPHA, _COLOUR, _COLOUR_ALPHA = 4, 2, 6
_HEADER = slice(12, 29)  # "IHDR", width, height, depth, colour type, compression, filter, interlace


def has_sixteen_bit_colour(data: bytes) -> bool:
    """Whether the header of a PNG states 16 bits and more than one channel (PNG specification, section 11.2.1)."""
    return data[12:16] == b"IHDR" and data[24] == 16 and data[25] in (_GRAY_ALPHA, _COLOUR, _COLOUR_ALPHA)


def read_sixteen_bit_colour(data: bytes) -> np.ndarray:
    """uint16 `[H, W, 3]`, or `[H, W, 1]` for gray with alpha; what is transparent is laid on white."""
    if data[25] == _GRAY_ALPHA:
        # Gray and alpha of 16 bits are, byte for byte and to every filter, four channels of 8 bits.
        pixels = _load(_as_eight_bit_rgba(data), None)
        return on_white(pixels.reshape(*pixels.shape[:2], 2, 2).astype(np.uint16) @ np.array([256, 1], dtype=np.uint16))
    mode = "RGB" if data[25] == _COLOUR else "RGBA"
    # Pillow keeps the first byte of each value, and of values it takes to be little-endian the second.
    high, low = _load(data, f"{mode};16B"), _load(data, f"{mode};16L")
    image = high.astype(np.uint16) << 8 | low
    return on_white(image) if mode == "RGBA" else image


def _load(data: bytes, raw_mode: str | None) -> np.ndarray:
    image = PngImagePlugin.PngImageFile(io.BytesIO(data))
    if raw_mode is not None:
        # Name, box, offset, raw mode; a named tuple since Pillow 11, a plain one before.
        image.tile = [(*tile[:3], raw_mode) for tile in image.tile]  # type: ignore[misc]
    image.load()
    return np.array(image)


def _as_eight_bit_rgba(data: bytes) -> bytes:
    header = bytearray(data[_HEADER])
    header[12:14] = 8, _COLOUR_ALPHA
    return data[:12] + bytes(header) + struct.pack(">I", zlib.crc32(header)) + data[33:]
