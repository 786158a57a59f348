"""Images of the tables: CIFAR-10 as normal, everything else 32x32 RGB, tuning and test parts apart.

Each set is shuffled once (seed 0); its first `tuning` images choose ODIN's settings and are never scored.
"""

import gzip
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """Images ``[N, 32, 32, 3]`` uint8 of one set: for tuning and for the table."""

    tuning: Images
    test: Images
    labels: NDArray[np.int64] | None = None


def encoded(path: Path, bring: Callable[[Image.Image, int], Image.Image]) -> tuple[Images, NDArray[np.int64]]:
    """Images of an archive of encoded files, each brought to 32x32."""
    archive = np.load(path)
    data, offsets, labels = archive["data"], archive["offsets"], archive["labels"]
    images = [
        np.asarray(bring(Image.open(io.BytesIO(data[a:b].tobytes())).convert("RGB"), i))
        for i, (a, b) in enumerate(itertools.pairwise(offsets))
    ]
    return np.stack(images), labels


def as_is(image: Image.Image, index: int) -> Image.Image:  # noqa: ARG001
    return image


def resized(image: Image.Image, index: int) -> Image.Image:  # noqa: ARG001
    """Short side to 32 (bilinear with PIL's antialiasing), then the centre."""
    scale = 32 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 32) // 2, (image.height - 32) // 2
    return image.crop((left, top, left + 32, top + 32))


def cropped(image: Image.Image, index: int) -> Image.Image:
    """A random 32x32 patch, as ODIN crops Tiny ImageNet."""
    rng = np.random.default_rng(index)
    left, top = rng.integers(0, image.width - 31), rng.integers(0, image.height - 31)
    return image.crop((left, top, left + 32, top + 32))


def digits(path: Path) -> Images:
    """Gray 28x28 images of an idx file, resized to 32x32 and copied to three channels."""
    raw = gzip.decompress(path.read_bytes())
    gray = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    return np.stack([np.asarray(resized(Image.fromarray(image), 0).convert("RGB")) for image in gray])


def uniform(count: int) -> Images:
    """Each value uniform in [0, 1]."""
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def gaussian(count: int) -> Images:
    """Each value from N(0.5, 1), clipped to [0, 1]."""
    values = np.random.default_rng(2).normal(0.5, 1.0, (count, 32, 32, 3))
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def load_normal(root: Path, *, tuning: int, count: int) -> Part:
    """CIFAR-10 test images."""
    images, labels = encoded(root / "cifar10/cifar10_test_lossless.npz", as_is)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    return Part(images[:tuning], images[tuning:][:count], labels[tuning:][:count])


def load_training(root: Path) -> tuple[Images, NDArray[np.int64]]:
    """20,000 CIFAR-10 training images with labels."""
    return encoded(root / "cifar10/cifar10_train_lossless_20k.npz", as_is)


def load_anomalous(root: Path, *, tuning: int, count: int) -> dict[str, Part]:
    """All other sets by name; a set with too few images gives a sixth of them to tuning."""
    tiny, textures = root / "tiny_imagenet/tiny_imagenet_val_4k.npz", root / "textures/dtd_10classes_1200_96px.npz"
    whole = {
        "CIFAR-100": encoded(root / "cifar100/cifar100_test_lossless_5k.npz", as_is)[0],
        "Tiny ImageNet crop": encoded(tiny, cropped)[0],
        "Tiny ImageNet resize": encoded(tiny, resized)[0],
        "Textures crop": encoded(textures, cropped)[0],
        "Textures resize": encoded(textures, resized)[0],
        "CelebA": encoded(root / "celeba/celeba_6k_89x109.npz", resized)[0],
        "MNIST": digits(root / "MNIST/raw/t10k-images-idx3-ubyte.gz"),
        "FashionMNIST": digits(root / "FashionMNIST/raw/t10k-images-idx3-ubyte.gz"),
        "notMNIST": digits(root / "notmnist/t10k-images-idx3-ubyte.gz"),
        "Uniform noise": uniform(tuning + count),
        "Gaussian noise": gaussian(tuning + count),
    }
    parts = {}
    for name, images in whole.items():
        images = images[np.random.default_rng(0).permutation(len(images))]
        held = min(tuning, len(images) // 6)
        parts[name] = Part(images[:held], images[held:][:count])
    return parts


NEAR = ("CIFAR-100",)
NATURAL = ("Tiny ImageNet crop", "Tiny ImageNet resize", "Textures crop", "Textures resize", "CelebA")
NOISE = ("Uniform noise", "Gaussian noise")
