"""A folder in which the commands of the docs can run: what they name, small and made up."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

CLASSIFIER = '''"""A classifier of three classes, small enough for a test."""

from torch import nn


def resnet20():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)
    )
'''


def texture(seed: int, size: tuple[int, int], *, defect: bool = False) -> NDArray[np.uint8]:
    """Stripes under noise; a defect is a bright blot in the middle."""
    height, width = size
    stripes = 100 + 40 * np.sin(np.arange(width) / 2)
    noise = np.random.default_rng(seed).normal(0, 8, (height, width))
    image = np.repeat((stripes + noise)[:, :, None], 3, axis=2)
    if defect:
        image[height // 3 : height // 2, width // 3 : width // 2] = 250
    return image.clip(0, 255).astype(np.uint8)


def folder(path: Path, count: int, size: tuple[int, int] = (32, 32), *, seed: int = 0, defect: bool = False) -> None:
    """A folder of PNG files."""
    path.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(texture(1000 * seed + index, size, defect=defect)).save(path / f"{index:03}.png")


def category(root: Path, kinds: tuple[str, ...], size: tuple[int, int] = (64, 64)) -> None:
    """A category in MVTec's layout, with masks."""
    folder(root / "train" / "good", 24, size)
    folder(root / "test" / "good", 6, size, seed=1)
    for kind in kinds:
        folder(root / "test" / kind, 6, size, seed=2, defect=True)
        masks = root / "ground_truth" / kind
        masks.mkdir(parents=True)
        mask = np.zeros(size, np.uint8)
        mask[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = 255
        for index in range(6):
            Image.fromarray(mask).save(masks / f"{index:03}_mask.png")


def idx_set(root: Path, level: int) -> None:
    """The files of MNIST's own format, training and test part."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 40)):
        pixels = np.random.default_rng(level).normal(level, 20, (count, 28, 28)).clip(0, 255).astype(np.uint8)
        images = struct.pack(">iiii", 0x803, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">ii", 0x801, count) + bytes(index % 10 for index in range(count))
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


def weights(path: Path, name: str) -> None:
    """A file of a network of timm with random weights."""
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model(name, pretrained=False).state_dict(), path)


def make(root: Path) -> None:
    """Everything that README.md and docs/ name."""
    for name, count in {"parts/good": 40, "more/good": 105, "incoming": 6, "test/good": 8}.items():
        folder(root / name, count, seed=count)
    folder(root / "more_good", 55, (64, 64), seed=55)
    folder(root / "test" / "bad", 8, defect=True)
    for seed, camera in enumerate(("left", "right"), 60):
        folder(root / "cameras" / camera, 20, seed=seed)
    lines = [f"{camera}/{index:03}.png,{camera[0]}" for camera in ("left", "right") for index in range(20)]
    (root / "lines.csv").write_text("\n".join(["path,line", *lines]))
    category(root / "bottle", ("broken",))
    category(root / "screw", ("scratch_neck",))
    listed = [("train/good", "good", "train", 24), ("test/good", "good", "test", 6), ("test/broken", "dent", "test", 6)]
    rows = [
        f"bottle/{place}/{index:03}.png,{label},"
        f"{'' if label == 'good' else f'bottle/ground_truth/broken/{index:03}_mask.png'},{split}"
        for place, label, split, count in listed
        for index in range(count)
    ]
    (root / "line.csv").write_text("\n".join(["path,label,mask,split", *rows]))
    folder(root / "large" / "good", 2, (300, 400))
    folder(root / "large" / "incoming", 2, (300, 400), defect=True)
    for name, count in {"train": 30, "held_out": 105, "cats": 10}.items():
        folder(root / name, count, seed=count)
    np.save(root / "noise.npy", np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8))
    idx_set(root / "FashionMNIST", 90)
    idx_set(root / "MNIST", 30)
    weights(root / "resnet18.safetensors", "resnet18")
    weights(root / "vit_tiny.safetensors", "vit_tiny_patch16_224")
    (root / "nets.py").write_text(CLASSIFIER)
    scope: dict[str, object] = {}
    exec(CLASSIFIER, scope)
    save_file(scope["resnet20"]().state_dict(), root / "resnet20.safetensors")  # type: ignore[operator]
