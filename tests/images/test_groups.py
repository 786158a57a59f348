"""What belongs together: equal files, files that look alike, folders and patterns."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from dracones.images import equal_groups, open_images, similar_groups


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for camera in ("cam1", "cam2"):
        (tmp_path / camera).mkdir()
        for i in range(3):
            coarse = generator.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / camera / f"{i}.png")
    return tmp_path


def test_copies_and_hard_links_are_equal_whatever_they_are_called(folder):
    shutil.copy(folder / "cam1" / "0.png", folder / "copy.png")
    os.link(folder / "cam2" / "1.png", folder / "linked.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    (folder / "broken2.png").write_bytes(b"")
    (folder / "broken3.png").write_bytes(b"")
    images = open_images(folder)
    groups = [[images.name(i) for i in group] for group in equal_groups(images.digests())]
    assert groups == [["cam1/0.png", "copy.png"], ["cam2/1.png", "linked.png"]]
    assert images.fingerprint(digests=images.digests()) == images.fingerprint()


def test_frames_that_look_alike_are_found_and_others_are_not(folder):
    frame = np.asarray(Image.open(folder / "cam1" / "1.png")).astype(int)
    Image.fromarray((frame + 3).clip(0, 255).astype(np.uint8)).save(folder / "cam1" / "1b.jpg", quality=80)
    images = open_images(folder)
    (group,) = similar_groups(images)
    assert [images.name(i) for i in group] == ["cam1/1.png", "cam1/1b.jpg"]


def test_unreadable_images_do_not_shift_the_places(folder):
    (folder / "a_broken.png").write_bytes(b"\x89PNG")
    shutil.copy(folder / "cam2" / "2.png", folder / "z.png")
    images = open_images(folder)
    (group,) = similar_groups(images)
    assert [images.name(i) for i in group] == ["cam2/2.png", "z.png"]


def test_groups_by_folder_and_by_pattern(folder):
    images = open_images(folder)
    assert images.grouped("folder") == ["cam1"] * 3 + ["cam2"] * 3
    assert images.grouped(r"cam\d/(\d)") == ["0", "1", "2"] * 2
    assert images.grouped(r"cam1") == ["cam1"] * 3 + ["cam2/0.png", "cam2/1.png", "cam2/2.png"]
    with pytest.raises(ValueError, match=r"group_by='\(': expected 'folder' or a regular expression"):
        images.grouped("(")
