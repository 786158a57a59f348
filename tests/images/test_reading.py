"""Every kind of image file keeps its depth and colours; every kind of broken file is named with its reason."""

import io
import lzma
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dracones.images import open_images
from dracones.images.limits import Limits, UnreadableImage
from dracones.images.reading import decode, shape_of

RAMP = (np.arange(16 * 12 * 3) % 256).astype(np.uint8).reshape(16, 12, 3)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(array: np.ndarray, colour: int) -> bytes:
    """A 16-bit PNG written by hand: no library at hand writes 16-bit colour."""
    height, width, channels = array.shape
    step, above, rows = 2 * channels, np.zeros(2 * channels * width, int), b""
    for y, row in enumerate(np.frombuffer(array.astype(">u2").tobytes(), np.uint8).reshape(height, -1).astype(int)):
        # Each of the five filters of the PNG specification, section 9, in turn.
        left, corner = (np.concatenate([np.zeros(step, int), line[:-step]]) for line in (row, above))
        to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
        paeth = np.where(to_above <= to_corner, above, corner)
        paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
        guess = [0, left, above, (left + above) // 2, paeth][y % 5]
        rows += bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def bomb_png(height: int, width: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 64))


@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PPM", {})]
)
def test_lossless_colour_comes_back_bit_for_bit(form, options):
    assert np.array_equal(decode(encoded(Image.fromarray(RAMP), form, **options), "a"), RAMP)


@pytest.mark.parametrize(
    ("form", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})]
)
def test_lossless_gray_has_one_channel(form, options):
    gray = RAMP[:, :, 0]
    assert np.array_equal(decode(encoded(Image.fromarray(gray), form, **options), "a"), gray[:, :, None])


def test_gif_is_colour_whatever_its_palette():
    gray = RAMP[:, :, :1]
    assert np.array_equal(decode(encoded(Image.fromarray(gray[:, :, 0]), "GIF"), "a"), gray.repeat(3, axis=2))


def test_jpeg_is_close():
    smooth = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (64, 48, 3))
    image = decode(encoded(Image.fromarray(smooth), "JPEG", quality=95), "a")
    assert np.abs(image.astype(int) - smooth).max() <= 4


def test_cmyk_jpeg_becomes_rgb():
    red = Image.new("RGB", (16, 8), (200, 30, 40))
    image = decode(encoded(red.convert("CMYK"), "JPEG", quality=95), "a")
    assert image.shape == (8, 16, 3)
    assert np.abs(image.mean((0, 1)) - [200, 30, 40]).max() < 6


def test_palette_becomes_its_colours():
    image = Image.fromarray(RAMP).quantize(8)
    assert np.array_equal(decode(encoded(image, "PNG"), "a"), np.array(image.convert("RGB")))


def test_transparent_palette_is_laid_on_white():
    image = Image.new("P", (4, 2), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((3, 1), 1)
    decoded = decode(encoded(image, "PNG", transparency=0), "a")
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[1, 3].tolist() == [200, 100, 50]


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (2, 2), (100, 0, 200, 51))
    assert decode(encoded(image, "PNG"), "a")[0, 0].tolist() == [224, 204, 244]
    opaque = Image.new("RGBA", (2, 2), (100, 0, 200, 255))
    assert decode(encoded(opaque, "WEBP", lossless=True), "a")[0, 0].tolist() == [100, 0, 200]


def test_gray_with_alpha_stays_gray():
    assert decode(encoded(Image.new("LA", (3, 2), (100, 0)), "PNG"), "a").tolist() == [[[255]] * 3] * 2


def test_one_bit_is_black_and_white():
    image = Image.new("1", (9, 3), 1)
    image.putpixel((0, 0), 0)
    decoded = decode(encoded(image, "PNG"), "a")
    assert decoded.dtype == np.uint8
    assert (decoded[0, 0, 0], decoded[2, 8, 0]) == (0, 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_depth(form):
    deep = np.arange(16 * 12, dtype=np.uint16).reshape(16, 12) * 341
    decoded = decode(encoded(Image.fromarray(deep), form), "a")
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded[:, :, 0], deep)


@pytest.mark.parametrize(("colour", "channels", "kept"), [(2, 3, 3), (6, 4, 3), (4, 2, 1)])
def test_sixteen_bit_colour_png_keeps_its_depth(colour, channels, kept):
    deep = np.random.default_rng(0).integers(0, 65536, (11, 7, channels)).astype(np.uint16)
    if channels in (2, 4):
        deep[:, :, -1] = 65535
    decoded = decode(png(deep, colour), "a")
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, deep[:, :, :kept])


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((9, 7, 3), {"photometric": "rgb"}),
        ((9, 7, 6), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((6, 9, 7), {"photometric": "minisblack", "planarconfig": "separate"}),
        ((9, 7, 3), {"photometric": "rgb", "compression": "zlib"}),
        ((9, 7, 5), {"photometric": "minisblack", "planarconfig": "contig", "bigtiff": True, "byteorder": ">"}),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_many_channels_comes_back_bit_for_bit(shape, options, dtype):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    expected = array.transpose(1, 2, 0) if shape[0] == 6 else array
    decoded = decode(tiff(array, **options), "a")
    assert decoded.dtype == dtype
    assert np.array_equal(decoded, expected)


def test_float_tiff_within_range_is_kept_and_beyond_it_refused():
    array = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    assert np.array_equal(decode(tiff(array), "a")[:, :, 0], array)
    colour = np.random.default_rng(0).random((6, 5, 3), dtype=np.float32)
    assert np.array_equal(decode(tiff(colour, photometric="rgb"), "a"), colour)
    with pytest.raises(UnreadableImage, match=r"float pixels from .* where \[0, 1\] is expected"):
        decode(tiff(array * 300), "a")
    with pytest.raises(UnreadableImage, match="from nan to nan"):
        decode(tiff(np.where(array > 0.5, np.nan, array)), "a")


def test_thirty_two_bit_integers_are_scaled_and_signed_ones_refused():
    array = np.array([[0, 2**32 - 1], [2**31, 1]], dtype=np.uint32)
    assert decode(tiff(array), "a")[:, :, 0] == pytest.approx(array / (2**32 - 1), abs=1e-7)
    with pytest.raises(UnreadableImage, match="int32 have no known scale"):
        decode(tiff(np.zeros((4, 4), np.int32)), "a")


def test_inverted_gray_tiff_is_turned_back():
    array = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    assert np.array_equal(decode(tiff(array, photometric="miniswhite"), "a")[:, :, 0], 65535 - array)


def test_first_page_and_first_frame():
    pages = np.stack([RAMP, 255 - RAMP])
    assert np.array_equal(decode(tiff(pages, photometric="rgb"), "a"), RAMP)
    first, second = Image.fromarray(RAMP), Image.fromarray(255 - RAMP)
    animated = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(decode(animated, "a"), RAMP)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_agrees_with_pillow(orientation, form):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(RAMP[:8]).resize((24, 16))
    data = encoded(smooth, form, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data, "a"), expected)
    assert shape_of(data, "a") == (3, *expected.shape[:2])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_shape_from_the_header_is_the_decoded_shape(mode):
    data = encoded(Image.fromarray(RAMP).convert(mode), "PNG")
    height, width, channels = decode(data, "a").shape
    assert shape_of(data, "a") == (channels, height, width)


def broken_files() -> dict[str, tuple[bytes, str]]:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    return {
        "empty": (b"", "the file is empty"),
        "text": (b"these are not the pixels you are looking for", "not an image: the first bytes are b'these are no'"),
        "cut_png": (encoded(image, "PNG")[:4000], "corrupt or truncated"),
        "cut_jpeg": (encoded(image, "JPEG")[:1500], "corrupt or truncated: image file is truncated"),
        "cut_tiff": (encoded(image, "TIFF")[:4000], "corrupt or truncated"),
        "cut_webp": (encoded(image, "WEBP")[:800], "corrupt or truncated"),
        "cut_bmp": (encoded(image, "BMP")[:3000], "corrupt or truncated"),
        "magic_only": (b"\x89PNG\r\n\x1a\n", "corrupt or truncated"),
        "html": (b"<html><body>404</body></html>", "not an image"),
        "zip": (b"PK\x03\x04" + b"\0" * 30, "not an image"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        "png_bomb": (
            bomb_png(60_000, 60_000),
            r"its header states 60000x60000 = 3,600,000,000 pixels, more than the limit",
        ),
    }


@pytest.mark.parametrize("what", sorted(broken_files()))
def test_broken_files_say_why(what):
    data, reason = broken_files()[what]
    with pytest.raises(UnreadableImage, match=reason) as error:
        decode(data, "folder/a.png")
    assert error.value.name == "folder/a.png"


def test_pixel_limit_is_the_callers_and_comes_before_decoding():
    data = encoded(Image.new("RGB", (100, 50)), "PNG")
    assert decode(data, "a", Limits(max_pixels=5000)).shape == (50, 100, 3)
    with pytest.raises(UnreadableImage, match="50x100 = 5,000 pixels, more than the limit of 4,999"):
        decode(data, "a", Limits(max_pixels=4999))
    # Beyond Pillow's own limit, which would warn or refuse: here the caller's word counts.
    large = decode(encoded(Image.new("1", (20_000, 10_000)), "PNG"), "a", Limits(max_pixels=2 * 10**8))
    assert large.shape == (10_000, 20_000, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00" + b"\x00" * 4 + b"\xff\xff\x3f" * 2 + b"\0" * 8,
        b"RIFF\x00\x00\x00\x00WEBPVP8L\x0a\x00\x00\x00" + b"\x2f\xff\xff\xff\xff" + b"\0" * 8,
        b"RIFF\x00\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00" + b"\0" * 3 + b"\x9d\x01\x2a" + b"\xff\x3f\xff\x3f" + b"\0" * 8,
    ],
)
def test_webp_bombs_are_seen_in_every_kind_of_header(data):
    with pytest.raises(UnreadableImage, match="more than the limit"):
        decode(data, "a")


def test_tiff_bomb_is_seen_in_the_header():
    data = bytearray(tiff(np.zeros((4, 4, 3), np.uint16), photometric="rgb"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        for tag in ("ImageWidth", "ImageLength"):
            where = file.pages[0].tags[tag]
            data[where.offset + 2 : where.offset + 4] = struct.pack("<H", 4)  # type LONG
            data[where.offset + 8 : where.offset + 12] = struct.pack("<I", 1_000_000)
    with pytest.raises(UnreadableImage, match="1000000x1000000"):
        decode(bytes(data), "a")


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_tiff_that_unpacks_to_more_than_it_states(compression):
    small = np.zeros((8, 8, 3), np.uint16)
    whole = tiff(small, photometric="rgb", compression=compression)
    assert np.array_equal(decode(whole, "a"), small)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        page = file.pages[0]
        bomb = (zlib.compress if compression == "zlib" else lzma.compress)(bytes(10**7))
        data = bytearray(whole) + bomb
        for tag, value in (("StripOffsets", len(whole)), ("StripByteCounts", len(bomb))):
            where = page.tags[tag]
            data[where.offset + 2 : where.offset + 4] = struct.pack("<H", 4)
            data[where.offset + 8 : where.offset + 12] = struct.pack("<I", value)
    with pytest.raises(UnreadableImage, match="unpacks to more than the 384 bytes"):
        decode(bytes(data), "a")


def test_many_channels_count_as_many_images():
    data = tiff(np.zeros((10, 10, 9), np.uint8), photometric="minisblack", planarconfig="contig")
    assert decode(data, "a", Limits(max_pixels=300)).shape == (10, 10, 9)
    with pytest.raises(UnreadableImage, match="10x10 by 9 channels = 300 pixels, more than the limit of 299"):
        decode(data, "a", Limits(max_pixels=299))


def samples() -> list[bytes]:
    small = Image.fromarray(RAMP)
    deep = np.arange(16 * 12, dtype=np.uint16).reshape(16, 12) * 341
    return [
        *(encoded(small, form) for form in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")),
        png(np.stack([deep] * 3, 2), 2),
        tiff(np.stack([deep] * 5, 2), photometric="minisblack", planarconfig="contig"),
    ]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_whatever_the_bytes_an_image_or_a_reason_comes_out(data):
    original = bytearray(data.draw(st.sampled_from(samples())))
    for _ in range(data.draw(st.integers(0, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(original)))
    try:
        image = decode(bytes(original[:cut]), "fuzz", Limits(max_pixels=10**6))
    except UnreadableImage as refused:
        image, reason = None, refused.reason
    assert (reason != "") if image is None else (image.ndim == 3 and image.dtype in (np.uint8, np.uint16, np.float32))


def test_of_several_pages_the_first_is_read_and_said_and_all_are_read_when_asked_for(tmp_path):
    frames = [Image.new("L", (6, 5), 40 * i) for i in range(1, 4)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], optimize=False)
    deep = [np.full((5, 6), 10_000 * i, np.uint16) for i in range(1, 3)]
    tifffile.imwrite(tmp_path / "deep.tif", np.stack(deep), photometric="minisblack")
    frames[0].save(tmp_path / "single.png")
    first = open_images(tmp_path)
    assert len(first) == 4
    for i in range(4):
        first.read(i)
    (note,) = first.notes
    assert note.startswith("3 files have several pages or frames")
    every = open_images(tmp_path, pages="all")
    assert every.names == [
        "deep.tif#1", "deep.tif#2", "film.gif#1", "film.gif#2", "film.gif#3", "scan.tif#1", "scan.tif#2", "scan.tif#3",
        "single.png",
    ]  # fmt: skip
    assert [round(float(every.read(i).mean()) * 255) for i in (5, 6, 7)] == [40, 80, 120]
    assert [round(float(every.read(i).mean()) * 65535) for i in (0, 1)] == [10_000, 20_000]
    assert len(set(every.digests())) == 9
    assert not every.notes
