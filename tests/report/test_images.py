import io

import numpy as np
import pytest
from PIL import Image

from dracones.report import Picture, image_picture, map_picture, overlay


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((6, 9), (9, 6)), ((1, 6, 9), (9, 6)), ((3, 6, 9), (9, 6)), ((4, 6, 9), (9, 6)), ((7, 6, 9), (9, 6))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_images_of_any_channels_and_depth(shape, size, dtype):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    drawn = image_picture(image if dtype == np.uint8 else image.astype(dtype) / 255)
    assert (drawn.width, drawn.height) == size
    if shape == (3, 6, 9):
        assert np.array_equal(pixels(drawn), image.transpose(1, 2, 0))
    if len(shape) == 2:
        assert np.array_equal(pixels(drawn)[..., 0], image)


def test_large_images_are_reduced_in_proportion():
    drawn = image_picture(np.zeros((3, 300, 1000)), largest=500)
    assert (drawn.width, drawn.height) == (500, 150)


def test_hotter_is_brighter_and_bounds_can_be_shared():
    row = np.linspace(0, 1, 16).reshape(1, 16)
    brightness = pixels(map_picture(row)).sum(axis=2)[0]
    assert (np.diff(brightness) > 0).all()
    shared = map_picture(row / 2, low=0, high=1)
    assert np.array_equal(pixels(shared)[0, -1], pixels(map_picture(row, low=0, high=2))[0, -1])
    assert map_picture(row).numbers == {"low": 0.0, "high": 1.0}


def test_signed_maps_are_symmetric_about_white():
    drawn = pixels(map_picture(np.array([[-2.0, 0.0, 1.0]]), kind="signed"))[0]
    assert drawn[1].min() > 240
    assert drawn[0][2] > drawn[0][0]
    assert drawn[2][0] > drawn[2][2]
    assert map_picture(np.array([[-2.0, 0.0, 1.0]]), kind="signed").numbers == {"low": -2.0, "high": 2.0}


@pytest.mark.parametrize("values", [np.full((4, 4), 7.0), np.full((4, 4), np.nan), np.array([[np.inf, 1.0]])])
def test_constant_and_non_finite_maps_can_be_drawn(values):
    drawn = pixels(map_picture(values))
    assert (drawn[~np.isfinite(values)] == 128).all()
    overlay(np.zeros(values.shape), values, threshold=1.0)


def test_overlay_shows_heat_outline_and_threshold_where_they_are():
    image, heat, mask = np.full((3, 64, 64), 0.5), np.zeros((64, 64)), np.zeros((64, 64), bool)
    heat[10:20, 40:50], mask[30:50, 8:28] = 5.0, True
    plain = pixels(overlay(image, heat, low=0, high=5, smallest=64))
    assert (plain[0, 0] == plain[60, 60]).all()
    assert plain[15, 45][0] > plain[15, 45][2]
    changed = (plain != plain[0, 0]).any(axis=2)
    assert changed[10:20, 40:50].all()
    assert changed.sum() == 100

    outlined = pixels(overlay(image, heat, mask=mask, low=0, high=5, smallest=64))
    differs = (outlined != plain).any(axis=2)
    assert differs[28:32, 8:28].any(axis=0).all()
    assert not differs[34:46, 12:24].any()
    assert not differs[:26].any()
    green = (outlined[..., 1] > 200) & (outlined[..., 0] < 40)
    assert green.sum() > 60

    thresholded = pixels(overlay(image, heat, threshold=2.5, low=0, high=5, smallest=64))
    white = (thresholded > 250).all(axis=2)
    assert white[7:23, 37:53].sum() == white.sum() > 20


def test_an_outline_at_the_border_is_closed():
    mask = np.zeros((40, 40), bool)
    mask[:10, :10] = True
    drawn = pixels(overlay(np.full((40, 40), 0.5), np.zeros((40, 40)), mask=mask, smallest=200))
    green = (drawn[..., 1] > 200) & (drawn[..., 0] < 40)
    assert green[:4, :45].any(axis=0).mean() > 0.9
    assert green[:45, :4].any(axis=1).mean() > 0.9


def test_small_images_are_enlarged_so_that_contours_are_lines():
    drawn = overlay(np.zeros((28, 28)), np.eye(28))
    assert (drawn.width, drawn.height) == (196, 196)
    assert (overlay(np.zeros((3, 600, 900)), np.zeros((600, 900)))).width == 512


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: overlay(np.zeros((3, 8, 9)), np.zeros((9, 8))), r"heat map is 9x8 \(height x width\), its image 8x9"),
        (lambda: overlay(np.zeros((8, 8)), np.zeros((8, 8)), mask=np.zeros((4, 4))), "the mask is 4x4"),
        (lambda: map_picture(np.zeros(5)), r"expected a map \[H, W\]; got shape \(5,\)"),
        (lambda: image_picture(np.zeros((2, 3, 4, 5))), r"expected an image \[C, H, W\] or \[H, W\]"),
        (lambda: image_picture(np.zeros((0, 4))), "expected an image"),
    ],
)
def test_wrong_shapes_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_picture_writes_its_own_kind_only(tmp_path):
    drawn = image_picture(np.zeros((4, 4)))
    drawn.write(tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep" / "a.png").read_bytes() == drawn.data
    with pytest.raises(ValueError, match=r"image/png.*got a.svg"):
        drawn.write(tmp_path / "a.svg")


def test_thumbnails_are_small_and_leave_tiny_images_exact():
    noise = np.random.default_rng(0).random((3, 512, 400))
    drawn = image_picture(noise)
    small = drawn.thumbnail(200)
    assert (small.height, small.media_type) == (200, "image/webp")
    assert len(small.data) < len(drawn.data) / 10
    tiny = image_picture(noise[:, :28, :28])
    assert tiny.thumbnail() is tiny
    svg = Picture(b"<svg/>", "image/svg+xml", 900, 900)
    assert svg.thumbnail() is svg


def test_what_was_not_looked_at_is_not_outlined():
    """NaN counted as 0, which is hotter than a threshold below zero."""
    heat = np.full((64, 64), -9.0)
    heat[:, 32:] = np.nan
    picture = overlay(np.zeros((64, 64)), heat, threshold=-5.0, low=-10.0, high=0.0)
    pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"))
    assert not (pixels == 255).all(axis=2).any()
