"""MVTec-AD's layout and masks: labels, kinds of defect, every mask with its image."""

import numpy as np
import pytest
import torch
from PIL import Image

from dracones.images import MvtecLayout, Preprocess, UnreadableImage, open_images


def test_the_layout_as_a_whole(mvtec):
    layout = MvtecLayout(mvtec, preprocess=Preprocess(size=4))
    assert layout.defects == ("dent", "scratch")
    assert layout.parts == ("train", "test", "test/good", "test/dent", "test/scratch")
    assert len(layout.train) == 4
    assert layout.train.labels.tolist() == [0] * 4
    assert not layout.train.has_masks
    assert layout.train.mask(0) is None
    test = layout.test
    assert test.labels.tolist() == [1, 0, 0, 1, 1]
    assert test.groups == ["dent", "good", "good", "scratch", "scratch"]
    assert test.classes == ("normal", "anomalous")
    assert test.mask(3).shape == (4, 4)
    assert not test.mask(1).any()


def test_parts_by_colon_and_by_path(mvtec):
    by_colon, by_path = open_images(f"{mvtec}:test/scratch"), open_images(mvtec / "test" / "scratch")
    assert by_colon.names == by_path.names == ["000.png", "001.png"]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:4, 2:5] = True
    assert torch.equal(by_path.mask(1), expected)
    assert torch.equal(open_images(mvtec / "test").mask(4), expected)
    assert open_images(f"{mvtec}:test/good").labels.tolist() == [0, 0]
    assert len(open_images(mvtec / "train")) == 4


def test_parts_have_to_be_named(mvtec):
    with pytest.raises(ValueError, match=r"has several parts; name one: .*bottle:train, .*bottle:test/scratch"):
        open_images(mvtec)
    with pytest.raises(ValueError, match="has no part 'test/hole'"):
        open_images(f"{mvtec}:test/hole")
    with pytest.raises(ValueError, match="has no part 'valid'; name one"):
        MvtecLayout(mvtec).open("valid")


def test_what_is_not_laid_out_so(mvtec, tmp_path):
    with pytest.raises(ValueError, match="holds categories; name one: bottle"):
        MvtecLayout(mvtec.parent)
    with pytest.raises(ValueError, match="is not laid out like MVTec-AD: expected train/good and test; it holds good"):
        MvtecLayout(mvtec / "train")
    with pytest.raises(ValueError, match="no such folder"):
        MvtecLayout(tmp_path / "nowhere")


def test_a_class_called_good_makes_no_inspection_set(mvtec, pixels):
    (mvtec / "train" / "bad").mkdir()
    Image.fromarray(pixels()).save(mvtec / "train" / "bad" / "000.png")
    images = open_images(mvtec / "train")
    assert images.classes == ("bad", "good")
    assert images.labels.tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="is not laid out like MVTec-AD"):
        MvtecLayout(mvtec)


def test_strict_layout_stops_at_what_should_be_an_image(mvtec):
    (mvtec / "train" / "good" / "notes.txt").write_text("x")
    assert MvtecLayout(mvtec).train.skipped[0].name == "good/notes.txt"
    assert len(MvtecLayout(mvtec, strict=True).train) > 0, "a text file is no image that could not be read"
    (mvtec / "train" / "good" / "gone.png").symlink_to(mvtec / "nowhere.png")
    with pytest.raises(UnreadableImage, match=r"good/gone.png"):
        _ = MvtecLayout(mvtec, strict=True).train


def test_an_image_without_its_mask_and_a_mask_without_its_image(mvtec):
    truth = mvtec / "ground_truth" / "scratch"
    moved = (truth / "001_mask.png").rename(truth / "007_mask.png")
    with pytest.raises(
        ValueError, match=r"1 of 3 masks in .* belong to no image, e.g. .*007_mask.png; images are called"
    ):
        open_images(mvtec / "test")
    moved.unlink()
    test = open_images(mvtec / "test")
    place = test.names.index("scratch/001.png")
    assert test.mask(place) is None, "nobody knows where it is anomalous"
    assert test.source.doubts() == ["scratch/001.png is anomalous and has no mask"]


def test_without_ground_truth_there_are_labels_and_no_masks(mvtec):
    import shutil

    shutil.rmtree(mvtec / "ground_truth")
    test = open_images(mvtec / "test")
    assert test.labels.tolist() == [1, 0, 0, 1, 1]
    assert not test.has_masks
    assert test.mask(0) is None


def test_a_mask_of_another_size_and_a_broken_one(mvtec):
    path = mvtec / "ground_truth" / "dent" / "000_mask.png"
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"000_mask.png is 8x9 pixels, its image dent/000.png 8x8"):
        open_images(mvtec / "test").mask(0)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"mask .*000_mask.png: the file is empty"):
        open_images(mvtec / "test").mask(0)


def test_masks_from_a_folder_of_ones_own(tmp_path, pixels):
    (tmp_path / "images" / "good").mkdir(parents=True)
    (tmp_path / "masks").mkdir()
    for name in ("a", "b", "good/c"):
        Image.fromarray(pixels()).save(tmp_path / "images" / f"{name}.jpg")
    for name, value in (("a", 1), ("b_mask", 255)):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4, 3:6] = value
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    images = open_images(tmp_path / "images", masks=tmp_path / "masks")
    assert images.labels.tolist() == [1, 1, 0]
    assert [int(images.mask(i).sum()) for i in range(3)] == [6, 6, 0]
    (tmp_path / "masks" / "a.png").unlink()
    assert open_images(tmp_path / "images", masks=tmp_path / "masks").mask(0) is None
    assert open_images(tmp_path / "images", masks=tmp_path / "masks", labels=[0, 1, 0]).labels.tolist() == [0, 1, 0]
    Image.fromarray(pixels()).save(tmp_path / "masks" / "b.png")
    with pytest.raises(ValueError, match="two masks for one image"):
        open_images(tmp_path / "images", masks=tmp_path / "masks")
    with pytest.raises(FileNotFoundError, match="no such folder of masks"):
        open_images(tmp_path / "images", masks=tmp_path / "mask")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no masks in"):
        open_images(tmp_path / "images", masks=tmp_path / "none")


def test_masks_one_by_one(mvtec):
    files = sorted((mvtec / "test" / "scratch").glob("*.png"))
    mask = mvtec / "ground_truth" / "scratch" / "000_mask.png"
    images = open_images(files, masks=[mask, None])
    assert images.labels.tolist() == [1, 0]
    assert images.mask(0).sum() == 9
    with pytest.raises(ValueError, match="1 masks for 2 images"):
        open_images(files, masks=[mask])
    with pytest.raises(FileNotFoundError, match=r"no such mask: .*absent.png"):
        open_images(files, masks=[mask, "absent.png"])
    with pytest.raises(TypeError, match="masks are matched to image files; ndarray holds none"):
        open_images(np.zeros((2, 8, 8), np.uint8), masks=[None, None])


def test_a_lossy_mask_is_cut_at_half(tmp_path, pixels):
    Image.fromarray(pixels(0, 32, 32)).save(tmp_path / "a.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    mask[9:23:2, 24] = 60  # what a careless compression leaves beside the object
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=95)
    noisy = np.array(Image.open(tmp_path / "m.jpg"))
    assert (noisy > 0).sum() > 16 * 16
    assert open_images([tmp_path / "a.png"], masks=[tmp_path / "m.jpg"]).mask(0).sum() == 16 * 16
