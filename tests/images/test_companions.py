"""What lies beside the images: our own pictures are never read, masks in the same folder are asked about."""

import numpy as np
import pytest
from PIL import Image

from dracones.images import open_images
from dracones.report import write_maps


def test_heat_maps_in_the_data_folder_are_not_learnt_from(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((8, 8), 50 * i, np.uint8)).save(tmp_path / f"{i}.png")
    names = open_images(tmp_path).names
    write_maps(tmp_path, names, [np.eye(8)] * 3)
    again = open_images(tmp_path)
    assert again.names == names
    assert {item.name for item in again.skipped if "heat map" in item.reason} == {f"{i}.png.heat.png" for i in range(3)}
    assert len(open_images(tmp_path, strict=True)) == 3


def test_image_and_mask_side_by_side_are_asked_about(tmp_path):
    for i in range(3):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.warns(UserWarning, match=r"occurs twice, such as 0\.jpg and 0\.png: if one is a mask"):
        open_images(tmp_path)
