"""Images that look alike: frames of a video, whatever their format; others do not."""

import shutil

import numpy as np
import pytest
from PIL import Image

from dracones.images import open_images, similar_groups


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for camera in ("cam1", "cam2"):
        (tmp_path / camera).mkdir()
        for i in range(3):
            coarse = generator.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / camera / f"{i}.png")
    return tmp_path


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
