"""TIFF: told apart by its first page's tags, and read here where Pillow would lose depth or channels."""

import io
import lzma
import math
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dracones.images.limits import UnreadableImage
from dracones.images.pixels import checked_float, on_white, oriented

if TYPE_CHECKING:
    import tifffile

_ORIENTATION = 274


class TiffHeader(NamedTuple):
    """What the tags of the first page say."""

    height: int
    width: int
    samples: int
    bits: int
    sample_format: int  # 1 unsigned, 2 signed, 3 float (TIFF 6.0, page 80)
    photometric: str
    extra: tuple[int, ...]
    orientation: int

    @property
    def is_beyond_pillow(self) -> bool:
        """Whether Pillow would not open it, or cut its depth: it keeps up to 4 samples of 8 bits, or one deeper one."""
        if self.samples == 1:
            known = ((1, 1), (4, 1), (8, 1), (16, 1), (32, 3))
            return (self.bits, self.sample_format) not in known or (
                self.bits == 16 and self.photometric == "MINISWHITE"
            )
        plain = (3, "RGB"), (4, "RGB"), (4, "SEPARATED"), (3, "YCBCR"), (3, "CIELAB")
        return self.bits != 8 or self.sample_format != 1 or (self.samples, self.photometric) not in plain

    @property
    def channels(self) -> int | None:
        """Channels of the decoded image, where the tags alone tell."""
        if self.photometric in ("PALETTE", "SEPARATED") or self.extra:
            return None
        return self.samples


def is_tiff(data: bytes) -> bool:
    """Whether the bytes start as a TIFF, little- or big-endian, classic or BigTIFF."""
    return data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def tiff_header(data: bytes) -> TiffHeader:
    """The first page's tags; whatever tifffile raises on damaged ones is passed on."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        orientation = int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1
        return TiffHeader(
            page.imagelength,
            page.imagewidth,
            page.samplesperpixel,
            page.bitspersample,
            page.sampleformat,
            _name(page.photometric),
            tuple(int(extra) for extra in page.extrasamples),
            orientation,
        )


def pages_in_tiff(data: bytes) -> int:
    """How many pages there are."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return len(tiff.pages)


def read_tiff(data: bytes, name: str, header: TiffHeader, page: int = 0) -> np.ndarray:
    """One page, `[H, W, C]`: uint8 or uint16 as stored, float32 in [0, 1] for floats and 32-bit integers.

    Raises:
        UnreadableImage: the compression or the pixel type is not one that can be read.
    """
    import tifffile

    if header.photometric == "PALETTE":
        raise UnreadableImage(name, f"a palette of {header.bits} bits is not read; save it as RGB")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        leaf = tiff.pages.first if page == 0 else tiff.pages[page].aspage()
        _check_segments(leaf, data, name)
        try:
            image = leaf.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise UnreadableImage(
                name, f"{_name(leaf.compression)} compression at this depth needs the package 'imagecodecs'"
            ) from error
        axes = leaf.axes
    image = image[:, :, None] if axes == "YX" else image
    if axes == "SYX":
        image = image.transpose(1, 2, 0)
    if image.ndim != 3:
        raise UnreadableImage(name, f"a TIFF with axes {axes!r} is no single image; save one page per file")
    if header.photometric == "MINISWHITE" and image.dtype.kind in "ub":
        image = np.invert(image)
    if image.dtype == np.uint32:
        image = (image / np.float64(2**32 - 1)).astype(np.float32)
    elif image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype.kind == "f":
        image = checked_float(image, name)
    elif image.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(
            name, f"pixels of type {image.dtype} have no known scale; save 8-bit, 16-bit or float in [0, 1]"
        )
    # 1: colours already multiplied by alpha, 2: not (TIFF 6.0, page 31); anything else is a channel like the others.
    if header.extra in ((1,), (2,)) and image.dtype.kind == "u":
        image = on_white(image)
    return oriented(np.ascontiguousarray(image), header.orientation)


def _check_segments(page: "tifffile.TiffPage", data: bytes, name: str) -> None:
    """Refuse strips or tiles that unpack to more than the header states: tifffile unpacks each without a bound."""
    expected = math.prod(page.chunks) * np.dtype(page.dtype or np.uint8).itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        unpack: Any
        if page.compression in (8, 32946):
            unpack = zlib.decompressobj()
        elif page.compression == 34925:
            unpack = lzma.LZMADecompressor()
        else:
            return
        if len(unpack.decompress(data[offset : offset + count], expected + 1)) > expected:
            raise UnreadableImage(name, f"a part unpacks to more than the {expected:,} bytes that its header states")


def _name(value: object) -> str:
    """The name of a tag's value; tifffile gives a bare number where it knows none."""
    return str(getattr(value, "name", value))
