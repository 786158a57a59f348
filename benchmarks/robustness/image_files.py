"""Whole image and array files of every kind that is read, and ways to damage one; each way from a seed alone."""

import gzip
import io
import pickle
import random
from functools import cache
from typing import Any

import numpy as np
import scipy.io
import tifffile
from PIL import Image

_SIDE = 24


@cache
def whole_files() -> dict[str, bytes]:
    """File name -> content; a name says what is in it."""
    noise = np.random.default_rng(0)
    colour = noise.integers(0, 256, (_SIDE, _SIDE, 3)).astype(np.uint8)
    # Rows that resemble one another, so that compression has something to predict.
    smooth = (np.add.outer(np.arange(_SIDE), np.arange(_SIDE)) * 5).astype(np.uint8)
    deep = noise.integers(0, 2**16, (_SIDE, _SIDE)).astype(np.uint16)
    frames = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    turned = Image.Exif()
    turned[0x0112] = 6
    batch = noise.integers(0, 256, (4, 3072)).astype(np.uint8)
    many = {"save_all": True, "append_images": frames[1:]}
    return {
        "gray.png": _encoded(Image.fromarray(smooth), "PNG"),
        "colour.png": _encoded(frames[0], "PNG"),
        "deep.png": _encoded(Image.fromarray(deep), "PNG"),
        "palette.png": _encoded(frames[0].quantize(16), "PNG", transparency=3),
        "alpha.png": _encoded(Image.fromarray(np.dstack([colour, smooth])), "PNG"),
        "animated.png": _encoded(frames[0], "PNG", **many),
        "colour.jpg": _encoded(frames[0], "JPEG", quality=90),
        "gray.jpg": _encoded(Image.fromarray(smooth), "JPEG"),
        "turned.jpg": _encoded(frames[0], "JPEG", exif=turned),
        "progressive.jpg": _encoded(frames[0], "JPEG", progressive=True),
        "cmyk.jpg": _encoded(frames[0].convert("CMYK"), "JPEG"),
        "colour.bmp": _encoded(frames[0], "BMP"),
        "palette.bmp": _encoded(frames[0].quantize(16), "BMP"),
        "lossy.webp": _encoded(frames[0], "WEBP"),
        "lossless.webp": _encoded(frames[0], "WEBP", lossless=True),
        "animated.webp": _encoded(frames[0], "WEBP", **many),
        "animated.gif": _encoded(frames[0], "GIF", **many),
        "gray.pgm": _encoded(Image.fromarray(smooth), "PPM"),
        "colour.ppm": _encoded(frames[0], "PPM"),
        "plain.tif": _tiff(colour),
        "lzw.tif": _encoded(frames[0], "TIFF", compression="tiff_lzw"),
        "deflated.tif": _encoded(Image.fromarray(smooth), "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": _encoded(frames[0], "TIFF", compression="jpeg"),
        "deep.tif": _tiff(deep),
        "float.tif": _tiff((smooth / 255).astype(np.float32)),
        "six_channels.tif": _tiff(np.dstack([colour, colour])),
        "pages.tif": _tiff(np.stack([smooth, smooth.T])),
        "tiled.tif": _tiff(colour, tile=(16, 16)),
        "big.tif": _tiff(colour, bigtiff=True),
        "images.npy": _saved(np.stack([colour, colour])),
        "named.npz": _saved_together(x_test=np.stack([smooth, smooth]), y_test=np.arange(2)),
        "packed.npz": _saved_together(packed=True, images=np.stack([colour / 255, colour / 255]).astype(np.float32)),
        "t10k-images.idx3-ubyte": _idx(np.stack([smooth, smooth])),
        "t10k-images.idx3-ubyte.gz": gzip.compress(_idx(np.stack([smooth, smooth])), mtime=0),
        "test_32x32.mat": _matlab(X=noise.integers(0, 256, (32, 32, 3, 2)).astype(np.uint8), y=np.array([[1], [2]])),
        "test_batch": pickle.dumps({b"data": batch, b"labels": [0, 1, 2, 3]}, protocol=2),
    }


def damaged(whole: bytes, random_: random.Random) -> tuple[str, bytes]:
    """Bytes as a bad disk, a bad copy or someone hostile leaves them."""
    kind = random_.choice(("flip", "flips", "zeroed", "noise", "truncated", "appended", "moved", "huge", "head", "cut"))
    data = bytearray(whole)
    place = random_.randrange(len(data))
    early = random_.randrange(min(len(data), 256))
    if kind == "flip":
        data[place] ^= 1 << random_.randrange(8)
    elif kind == "flips":
        for _ in range(random_.randrange(2, 40)):
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    elif kind == "zeroed":
        data[place : place + random_.randrange(1, 256)] = bytes(random_.randrange(1, 256))
    elif kind == "noise":
        data[place : place + 64] = random_.randbytes(64)
    elif kind == "truncated":
        del data[place:]
    elif kind == "appended":
        data += random_.randbytes(random_.randrange(1, 500))
    elif kind == "moved":
        other, size = random_.randrange(len(data)), random_.randrange(1, 64)
        data[place : place + size], data[other : other + size] = data[other : other + size], data[place : place + size]
    elif kind == "huge":
        # Sizes, counts and offsets stand early in most files.
        number = random_.choice((0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF))
        data[early : early + 4] = number.to_bytes(4, random_.choice(("little", "big")))
    elif kind == "head":
        for _ in range(random_.randrange(1, 6)):
            data[random_.randrange(min(len(data), 256))] = random_.randrange(256)
    else:
        del data[place : place + random_.randrange(1, 64)]
    return kind, bytes(data)


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _tiff(array: np.ndarray, *, bigtiff: bool = False, **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, bigtiff=bigtiff) as writer:
        for page in array if array.shape[0] == 2 else [array]:
            writer.write(page, **options)
    return stream.getvalue()


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _saved_together(*, packed: bool = False, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays)
    return stream.getvalue()


def _idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\x00\x00\x08" + bytes([array.ndim]) + sizes + array.tobytes()


def _matlab(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays)
    return stream.getvalue()
