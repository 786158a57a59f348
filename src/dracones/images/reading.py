"""One encoded image, read safely: from bytes to an array that keeps the depth the file has.

An image is `[H, W, C]`: uint8 or uint16 as stored, or float32 in [0, 1]. Gray has one channel; a palette, CMYK, YCbCr
or Lab becomes RGB; what is transparent is laid on white, as a viewer shows it; EXIF orientation is applied; of several
pages or frames the first is taken unless another is asked for. The format is told by the first bytes, never by the
file's name.
"""

import io
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dracones.images.budget import BUDGET, decoding_bytes
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.noise import quiet
from dracones.images.pixels import checked_float, on_white, oriented
from dracones.images.png import has_sixteen_bit_colour, read_sixteen_bit_colour
from dracones.images.tiff import is_tiff, pages_in_tiff, read_tiff, tiff_header

SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)

_ORIENTATION_TAG = 0x0112
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def read_bytes(path: Path, name: str, limits: Limits) -> bytes:
    """The file's bytes, after a look at its size."""
    try:
        status = path.stat()
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            # A pipe or a device would keep the reader waiting for ever.
            raise UnreadableImage(name, "not a regular file")
        if size == 0:
            raise UnreadableImage(name, "the file is empty")
        if size > limits.max_file_bytes:
            raise UnreadableImage(
                name, f"the file has {size:,} bytes, more than the limit of {limits.max_file_bytes:,} (max_file_bytes)"
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(name, f"the file cannot be opened: {error.strerror or error}") from error


def decode(data: bytes, name: str, limits: Limits | None = None, page: int = 0) -> np.ndarray:
    """The image in `data`, `[H, W, C]`, uint8, uint16 or float32 in [0, 1]; of several pages the one asked for.

    Raises:
        UnreadableImage: `data` is empty, no image, corrupt, truncated, too large, or has pixels without a known scale.

    Example:
        >>> stream = io.BytesIO(); Image.new("RGB", (4, 2), "red").save(stream, "PNG")
        >>> decode(stream.getvalue(), "red.png").shape
        (2, 4, 3)
    """
    limits = limits or Limits()
    try:
        with quiet():
            return np.require(_decoded(data, name, limits, page), requirements=["C", "W"])
    except UnreadableImage:
        raise
    except MemoryError as error:
        raise UnreadableImage(name, "decoding it needs more memory than there is") from error
    # Decoders meet arbitrary bytes here and each fails in its own way; whatever they raise means the same.
    except Exception as error:
        raise UnreadableImage(name, f"corrupt or truncated: {error or type(error).__name__}") from error


def decode_labels(data: bytes, name: str, limits: Limits | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A mask's labels `[H, W, C]` and what of it is opaque `[H, W]`: palettes by index, transparency apart.

    Raises:
        UnreadableImage: as `decode`.
    """
    limits = limits or Limits()
    plain = decode(data, name, limits)
    if is_tiff(data) and tiff_header(data).is_beyond_pillow:
        return plain, np.ones(plain.shape[:2], dtype=bool)
    with quiet():
        image = _open(data, name, limits)
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        transparency = image.info.get("transparency")
        if image.mode == "P":
            labels = np.array(image)[:, :, None]
            alpha = np.array(image.convert("RGBA"))[:, :, 3] if transparency is not None else np.ones(labels.shape[:2])
        elif "A" in image.getbands() or transparency is not None:
            both = np.array(image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA"))
            labels, alpha = both[:, :, :-1], both[:, :, -1]
        else:
            return plain, np.ones(plain.shape[:2], dtype=bool)
    return oriented(labels, orientation), oriented(alpha[:, :, None], orientation)[:, :, 0] > 0


def page_count(data: bytes, name: str, limits: Limits | None = None) -> int:
    """Pages or frames in `data`; 1 where it cannot be told, as reading it will say why."""
    limits = limits or Limits()
    try:
        with quiet():
            return pages_in_tiff(data) if is_tiff(data) else int(getattr(_open(data, name, limits), "n_frames", 1))
    # Decoders fail on damaged files in any way; what is wrong is said when the image is read.
    except Exception:
        return 1


def shape_of(data: bytes, name: str, limits: Limits | None = None) -> tuple[int, int, int]:
    """`(C, H, W)` as `decode` would give it, from the header alone where the format allows.

    Raises:
        UnreadableImage: `data` does not start as an image that may be read.
    """
    limits = limits or Limits()
    try:
        with quiet():
            known = _shape_in_header(data, name, limits)
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(name, f"corrupt or truncated: {error or type(error).__name__}") from error
    if known is not None:
        return known
    height, width, channels = decode(data, name, limits).shape
    return channels, height, width


def _decoded(data: bytes, name: str, limits: Limits, page: int) -> np.ndarray:
    if is_tiff(data):
        tags = tiff_header(data)
        limits.check_pixels(name, tags.height, tags.width, tags.samples)
        BUDGET.take(name, decoding_bytes(tags.height, tags.width, tags.samples, -(-tags.bits // 8)), limits)
        if tags.is_beyond_pillow:
            return read_tiff(data, name, tags, page)
    header = _open(data, name, limits)
    if not is_tiff(data):
        channels, depth = _depth_of(header, data)
        BUDGET.take(name, decoding_bytes(header.height, header.width, channels, depth), limits)
    if header.format == "PNG" and has_sixteen_bit_colour(data):
        return oriented(read_sixteen_bit_colour(data), header.getexif().get(_ORIENTATION_TAG, 1))
    if page:
        header.seek(page)
        limits.check_pixels(name, header.height, header.width)
    header.load()
    return oriented(from_pillow(header, name), header.getexif().get(_ORIENTATION_TAG, 1))


def _depth_of(header: ImageFile.ImageFile, data: bytes) -> tuple[int, int]:
    """Channels, and bytes of one value, as stored."""
    sixteen = header.mode in _SIXTEEN_BIT or (header.format == "PNG" and has_sixteen_bit_colour(data))
    return len(header.getbands()), 4 if header.mode in ("I", "F") else 2 if sixteen else 1


def _shape_in_header(data: bytes, name: str, limits: Limits) -> tuple[int, int, int] | None:
    """`(C, H, W)` where the header tells it without doubt."""
    if is_tiff(data):
        tags = tiff_header(data)
        limits.check_pixels(name, tags.height, tags.width, tags.samples)
        return None if tags.channels is None or tags.orientation != 1 else (tags.channels, tags.height, tags.width)
    header = _open(data, name, limits)
    if header.format == "GIF" or "transparency" in header.info or header.getexif().get(_ORIENTATION_TAG, 1) != 1:
        return None
    channels = {"1": 1, "L": 1, "RGB": 3, "CMYK": 3, **dict.fromkeys(_SIXTEEN_BIT, 1)}.get(header.mode)
    return None if channels is None else (channels, header.height, header.width)


def _open(data: bytes, name: str, limits: Limits) -> ImageFile.ImageFile:
    """The image with its header read and its size accepted, nothing decoded.

    The plug-ins are called directly: `PIL.Image.open` would try formats nobody asked for (some start other programs)
    and warn by a process-wide pixel limit instead of the caller's.
    """
    if not data:
        raise UnreadableImage(name, "the file is empty")
    opener = _opener_of(data)
    if opener is None:
        raise UnreadableImage(name, f"not an image: the first bytes are {data[:12]!r}")
    if data[:4] == b"RIFF":
        # The WebP decoder sets aside the whole canvas when it is made, so its size is read here first.
        limits.check_pixels(name, *_webp_size(data))
    header = opener(io.BytesIO(data), name)
    limits.check_pixels(name, header.height, header.width)
    return header


def _opener_of(data: bytes) -> Callable[[io.BytesIO, str], ImageFile.ImageFile] | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if is_tiff(data):
        return TiffImagePlugin.TiffImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    if data.startswith(b"BM") and len(data) > 26:
        return BmpImagePlugin.BmpImageFile
    if data[:1] == b"P" and data[1:2] in b"123456f" and data[2:3].isspace():
        return PpmImagePlugin.PpmImageFile
    return None


def _webp_size(data: bytes) -> tuple[int, int]:
    """(height, width) from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ValueError("the header is cut off")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[7:10], "little"), 1 + int.from_bytes(body[4:7], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return height & 0x3FFF, width & 0x3FFF


def from_pillow(image: Image.Image, name: str) -> np.ndarray:
    """`[H, W, C]`, uint8, uint16 or float32 in [0, 1], from an open Pillow image.

    Raises:
        UnreadableImage: pixels of a type without a known scale, or floats outside [0, 1].
    """
    mode = image.mode
    if image.format == "GIF" and mode == "L":
        # Gray or not depends on each file's palette; a set of GIFs is colour throughout.
        return np.array(image.convert("RGB"))
    if mode in _SIXTEEN_BIT:
        return np.array(image).astype(np.uint16)[:, :, None]
    if mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits in these two, whatever the Pillow version calls them
        return np.array(image).astype(np.uint16)[:, :, None]
    if mode == "F":
        return checked_float(np.array(image)[:, :, None], name)
    if mode in ("1", "L") and "transparency" not in image.info:
        return np.array(image.convert("L"))[:, :, None]
    if mode in ("L", "LA", "La"):
        return on_white(np.array(image.convert("LA")))
    if mode in ("P", "PA", "RGB", "RGBA", "RGBa") and ("transparency" in image.info or "A" in mode.upper()):
        return on_white(np.array(image.convert("RGBA")))
    if mode in ("P", "RGB", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.array(image.convert("RGB"))
    raise UnreadableImage(
        name, f"pixels of type {mode!r} have no known scale; save it as 8-bit, 16-bit or float in [0, 1]"
    )
