"""The image sets of the tables as 8-bit tensors [N, C, H, W], read from a folder of local files.

Grayscale sets are 28x28 as published. Colour sets are brought to 32x32 by one recipe for all: resize the short
side to 32 (Pillow's antialiased bilinear), crop the centre (Kirichenko et al. 2020 for CelebA); CIFAR images are
32x32 already and pass unchanged, which leaves their own resampling history in the comparison.
"""

import gzip
import hashlib
import io
import itertools
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.paradox.house_numbers import house_numbers

GRAY = ("FashionMNIST", "MNIST", "notMNIST")


def data_root() -> Path:
    """The folder of the data sets: `DRACONES_TEST_DATA`, as for the tests."""
    root = Path(os.environ.get("DRACONES_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not root.is_dir():
        raise SystemExit(f"no data at {root}: set DRACONES_TEST_DATA")
    return root


@cache
def train_images(name: str) -> Tensor:
    """Training images of one of the four sets that are trained on."""
    if name in ("FashionMNIST", "MNIST"):
        return _idx(data_root() / name / "raw" / "train-images-idx3-ubyte.gz")
    if name == "CIFAR-10":
        return _encoded("cifar10/cifar10_train_lossless_20k.npz")
    if name == "CelebA":
        return _encoded("celeba/celeba_6k_89x109.npz")[:5000]
    raise ValueError(f"no training images for {name!r}")


@cache
def test_images(name: str) -> Tensor:
    """Test images: the full published test set, or what the data folder holds of it."""
    return _TEST[name]()


def _idx(path: Path) -> Tensor:
    raw = gzip.decompress(path.read_bytes())
    count, height, width = np.frombuffer(raw, dtype=">i4", count=4)[1:]
    pixels = np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(count, 1, height, width)
    return torch.from_numpy(pixels.copy())


def _encoded(relative: str, size: int = 32, resizing: Image.Resampling = Image.Resampling.BILINEAR) -> Tensor:
    with np.load(data_root() / relative) as archive:
        blob, offsets = archive["data"].tobytes(), archive["offsets"]
    pairs = itertools.pairwise(offsets)
    return torch.stack([_decode(blob[start:end], size, resizing) for start, end in pairs])


def _decode(encoded: bytes, size: int, resizing: Image.Resampling) -> Tensor:
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    width, height = image.size
    if min(width, height) != size:
        scale = size / min(width, height)
        image = image.resize((max(size, round(width * scale)), max(size, round(height * scale))), resizing)
    width, height = image.size
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _noise(count: int = 2000) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))


def _constants(count: int = 2000) -> Tensor:
    colours = np.random.default_rng(1).integers(0, 256, (count, 3, 1, 1), dtype=np.uint8)
    return torch.from_numpy(np.broadcast_to(colours, (count, 3, 32, 32)).copy())


_TEST: dict[str, Callable[[], Tensor]] = {
    "FashionMNIST": lambda: _idx(data_root() / "FashionMNIST/raw/t10k-images-idx3-ubyte.gz"),
    "MNIST": lambda: _idx(data_root() / "MNIST/raw/t10k-images-idx3-ubyte.gz"),
    "notMNIST": lambda: _idx(data_root() / "notmnist/t10k-images-idx3-ubyte.gz"),
    "CIFAR-10": lambda: _encoded("cifar10/cifar10_test_lossless.npz"),
    "CIFAR-100": lambda: _encoded("cifar100/cifar100_test_lossless_5k.npz"),
    "CelebA": lambda: _encoded("celeba/celeba_6k_89x109.npz")[5000:],
    "Tiny ImageNet": lambda: _encoded("tiny_imagenet/tiny_imagenet_val_4k.npz"),
    "textures": lambda: _encoded("textures/dtd_10classes_1200_96px.npz"),
    "synthetic house numbers": lambda: torch.from_numpy(house_numbers(4000)),
    "noise": _noise,
    "constants": _constants,
}


LARGER = {
    "CelebA": "celeba/celeba_6k_89x109.npz",
    "Tiny ImageNet": "tiny_imagenet/tiny_imagenet_val_4k.npz",
    "textures": "textures/dtd_10classes_1200_96px.npz",
}


def resized_by(name: str, resizing: Image.Resampling) -> Tensor:
    """One of the sets that are larger than 32x32, brought there by another filter than the tables'."""
    images = _encoded(LARGER[name], resizing=resizing)
    return images[5000:] if name == "CelebA" else images


def fingerprint(images: Tensor) -> str:
    """Short content hash of a set, recorded beside every figure."""
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16]
