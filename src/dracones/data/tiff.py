"""TIFF images that Pillow cannot keep whole: 16-bit colour, many channels, floats in several samples."""

import io

import numpy as np

from .limits import UnreadableImage
from .pixels import checked_float, on_white, oriented


def is_tiff(data: bytes) -> bool:
    """Whether the bytes start as a TIFF, little- or big-endian, classic or BigTIFF."""
    return data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def needs_tifffile(data: bytes) -> bool:
    """Whether Pillow would lose depth or channels: it keeps 8-bit images of up to 4 samples and single deep samples."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        samples, bits = page.samplesperpixel, page.bitspersample
        if samples == 1:
            # Pillow knows one sample of 1, 8 or 16 bits unsigned and of 32 bits float.
            return (bits, page.sampleformat) not in ((1, 1), (4, 1), (8, 1), (16, 1), (32, 3))
        return bits != 8 or samples > 4 or (samples == 4 and _name(page.photometric) not in ("RGB", "SEPARATED"))


def read_tiff(data: bytes, name: str) -> np.ndarray:
    """The first page, `[H, W, C]`: uint8 or uint16 as stored, float32 in [0, 1] for floats and 32-bit integers.

    Raises:
        UnreadableImage: the compression or the pixel type is not one that can be read.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        try:
            image = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise UnreadableImage(
                name, f"{_name(page.compression)} compression at this depth needs the package 'imagecodecs'"
            ) from error
        axes, photometric, extra = page.axes, _name(page.photometric), tuple(int(e) for e in page.extrasamples)
        orientation = int(page.tags[274].value) if 274 in page.tags else 1
    image = image[:, :, None] if axes == "YX" else image
    if axes == "SYX":
        image = image.transpose(1, 2, 0)
    if image.ndim != 3:
        raise UnreadableImage(name, f"a TIFF with axes {axes!r} is no single image; save one page per file")
    if photometric == "MINISWHITE" and image.dtype.kind in "ub":
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
    if extra in ((1,), (2,)) and image.shape[2] in (2, 4) and image.dtype.kind == "u":
        image = on_white(image)
    return oriented(np.ascontiguousarray(image), orientation)


def _name(value: object) -> str:
    """The name of a tag's value; tifffile gives a bare number where it knows none."""
    return str(getattr(value, "name", value))
