"""The real sets, where they are at hand: the right images in the right number, fast."""

import hashlib
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dracones.images import MvtecLayout, Preprocess, open_images

pytestmark = pytest.mark.data


def test_fashion_mnist_is_the_official_one_and_fast(test_data):
    images = open_images(f"{test_data}/FashionMNIST/raw:train")
    start = time.process_time()
    count = sum(len(batch.images) for batch in images.batches(256))
    spent = time.process_time() - start
    assert count == 60_000
    assert spent < 1
    assert np.bincount(images.labels).tolist() == [6000] * 10
    body = images.source.array.tobytes()
    header = b"\x00\x00\x08\x03" + np.array([60000, 28, 28], ">u4").tobytes()
    assert hashlib.md5(header + body, usedforsecurity=False).hexdigest() == "f4a8712d7a061bf5bd6d2ca38dc4d50a"


def test_notmnist_has_one_split(test_data):
    images = open_images(test_data / "notmnist")
    assert len(images) == 10_000
    assert images.inferred_preprocess() == open_images(f"{test_data}/MNIST:test").inferred_preprocess()


@pytest.mark.parametrize(
    ("file", "count", "shape", "classes"),
    [
        ("cifar10/cifar10_test_lossless.npz", 10_000, (3, 32, 32), 10),
        ("cifar100/cifar100_test_lossless_5k.npz", 5_000, (3, 32, 32), 100),
        ("celeba/celeba_6k_89x109.npz", 6_000, (3, 109, 89), None),
        ("textures/dtd_10classes_1200_96px.npz", 1_200, (3, 96, 96), 10),
        ("tiny_imagenet/tiny_imagenet_val_4k.npz", 4_000, (3, 64, 64), 200),
    ],
)
def test_encoded_sets(test_data, file, count, shape, classes):
    images = open_images(test_data / file)
    assert len(images) == count
    assert images.native_shape(0) == images.read(0).shape == shape
    assert (None if images.classes is None else len(images.classes)) == classes
    assert (images.labels is None) == (classes is None)
    some = images.subset(range(0, count, count // 40)).with_preprocess(Preprocess(size=32, channels=3))
    assert some.to_tensor().shape[1:] == (3, 32, 32)
    assert images.skipped == []


def test_screws(test_data, tmp_path):
    with tarfile.open(test_data / "mvtec" / "screw_256.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    layout = MvtecLayout(tmp_path / "screw")
    assert layout.defects == ("manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top")
    assert len(layout.train) == 320
    test = layout.test
    assert (int(test.labels.sum()), len(test)) == (119, 160)
    for i in range(0, 160, 10):
        assert bool(test.mask(i).any()) == bool(test.labels[i])
    assert torch.equal(test.read(50), open_images(f"{tmp_path}/screw:test").read(50))


def test_magnetic_tiles_with_masks_beside_them(test_data, tmp_path):
    with tarfile.open(test_data / "mtd" / "magnetic_tile_defect_original.tar") as archive:
        members = [m for m in archive.getmembers() if "MT_Fray" in m.name or "MT_Free/Imgs/exp1" in m.name]
        archive.extractall(tmp_path, members, filter="data")
    files = [Path(name) for name in open_images(f"{tmp_path}/MT_*/Imgs/*.jpg").source.paths]
    masks = [None if "Free" in str(file) else file.with_suffix(".png") for file in files]
    images = open_images(files, masks=masks)
    assert int(images.labels.sum()) == 32
    assert all(bool(images.mask(i).any()) == bool(images.labels[i]) for i in range(len(images)))
    with pytest.raises(ValueError, match="differ in size"):
        images.to_tensor()
