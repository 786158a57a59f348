"""Masks are labels and not pictures: transparency, palettes, 0/1, lossy files, several masks, doubts."""

import numpy as np
import pytest
from PIL import Image

from dracones.images import Limits, MvtecLayout, open_images
from dracones.images.masks import read_mask

TRUTH = np.zeros((16, 16), bool)
TRUTH[2:8, 3:9] = True


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("value", [1, 128, 255])
def test_any_label_marks(tmp_path, value):
    path = save(tmp_path / "m.png", (TRUTH * value).astype(np.uint8))
    assert np.array_equal(read_mask(path, Limits()), TRUTH)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 10, 10)])
def test_what_is_transparent_is_not_marked_whatever_lies_under_it(tmp_path, colour):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., :3] = colour
    rgba[TRUTH] = (255, 0, 0, 255)
    assert np.array_equal(read_mask(save(tmp_path / "m.png", rgba), Limits()), TRUTH)
    gray = np.zeros((16, 16, 2), np.uint8)
    gray[..., 0], gray[..., 1] = 255, TRUTH * 255
    Image.fromarray(gray, "LA").save(tmp_path / "la.png")
    assert np.array_equal(read_mask(tmp_path / "la.png", Limits()), TRUTH)


def test_a_transparency_chunk_counts(tmp_path):
    Image.fromarray((TRUTH * 200 + ~TRUTH * 7).astype(np.uint8)).save(tmp_path / "m.png", transparency=7)
    assert np.array_equal(read_mask(tmp_path / "m.png", Limits()), TRUTH)


def test_a_palette_counts_by_its_index_and_not_by_its_colours(tmp_path):
    image = Image.fromarray(TRUTH.astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])  # background white, marks black
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", Limits()), TRUTH)


@pytest.mark.parametrize("value", [1, 255])
def test_a_lossy_file_of_zeros_and_ones_is_not_empty(tmp_path, value):
    path = tmp_path / "m.jpg"
    Image.fromarray((TRUTH * value).astype(np.uint8)).resize((128, 128), 0).save(path, quality=95)
    found = read_mask(path, Limits())
    if value == 255:
        assert abs(found.mean() - TRUTH.mean()) < 0.02
    else:
        assert found.any() or not np.asarray(Image.open(path)).any(), "compression may erase a single level, not we"


def test_an_upright_mask_of_a_photo_that_exif_turns_says_exif(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    photo = Image.new("RGB", (20, 10))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "images" / "a.jpg", exif=exif)
    save(tmp_path / "masks" / "a.png", np.zeros((10, 20), np.uint8))
    images = open_images(tmp_path / "images", masks=tmp_path / "masks")
    with pytest.raises(ValueError, match="turned by its EXIF orientation and the mask is not"):
        images.mask(0)


def test_several_masks_of_an_image_are_joined_as_in_loco(tmp_path):
    root = tmp_path / "breakfast"
    for folder in ("train/good", "test/good", "test/logical", "ground_truth/logical/000"):
        (root / folder).mkdir(parents=True)
    for name in ("train/good/000.png", "test/good/000.png", "test/logical/000.png"):
        save(root / name, np.zeros((16, 16), np.uint8))
    left, right = TRUTH.copy(), TRUTH.T.copy()
    for i, mask in enumerate((left, right)):
        save(root / "ground_truth" / "logical" / "000" / f"00{i}.png", (mask * 255).astype(np.uint8))
    test = MvtecLayout(root).test
    place = test.names.index("logical/000.png")
    assert np.array_equal(test.mask(place).numpy(), left | right)


def test_btads_folders_are_read(tmp_path):
    for folder in ("train/ok", "test/ok", "test/ko", "ground_truth/ko"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("train/ok/0.bmp", "test/ok/1.bmp", "test/ko/2.bmp"):
        save(tmp_path / name, np.zeros((16, 16), np.uint8))
    save(tmp_path / "ground_truth" / "ko" / "2.png", (TRUTH * 255).astype(np.uint8))
    layout = MvtecLayout(tmp_path)
    assert layout.train.names == ["ok/0.bmp"] or layout.train.names == ["0.bmp"]
    assert dict(zip(layout.test.names, layout.test.labels.tolist(), strict=True)) == {"ok/1.bmp": 0, "ko/2.bmp": 1}
    assert layout.test.mask(layout.test.names.index("ko/2.bmp")).sum() == TRUTH.sum()


def test_masks_that_say_nothing_or_everything_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name, mask in (("a", TRUTH), ("b", TRUTH & False), ("c", TRUTH | True)):
        save(tmp_path / "images" / f"{name}.png", np.zeros((16, 16), np.uint8))
        save(tmp_path / "masks" / f"{name}.png", (mask * 255).astype(np.uint8))
    images = open_images(tmp_path / "images", masks=tmp_path / "masks")
    nothing, everything = images.source.doubts()
    assert nothing == "the mask of b.png marks nothing, though the image is anomalous"
    assert everything == "the mask of c.png marks 100% of it: is it the other way round?"


def test_masks_can_be_left_alone(mvtec):
    known, alone = open_images(f"{mvtec}:test"), open_images(f"{mvtec}:test", masks=False)
    odd = int(np.flatnonzero(known.labels)[0])
    assert known.has_masks
    assert known.mask(odd).any()
    assert not alone.has_masks
    assert alone.mask(odd) is None
    view = alone.subset([odd]).with_preprocess(None)
    assert not view.has_masks
    assert view.mask(0) is None
    assert not open_images(known, masks=False).has_masks
    assert known.has_masks, "a view leaves the collection as it is"
