"""Tiny images by the thousand, and a detector that is cheap to ask: what the measurements of scale run on."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FITTED = 300


def encoded(count: int, side: int, seed: int = 0) -> Iterator[bytes]:
    """PNG files of noisy gray images, each its own."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        pixels = generator.normal(generator.normal(110, 20), 25, (side, side)).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
        yield stream.getvalue()


def write_parquet(path: Path, count: int, side: int, seed: int = 0, group: int = 5_000) -> Path:
    """One Parquet file of `count` images."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("image", pyarrow.binary())])
    source = encoded(count, side, seed)
    with pyarrow.parquet.ParquetWriter(path, schema, compression="none") as writer:
        for first in range(0, count, group):
            images = [next(source) for _ in range(min(group, count - first))]
            writer.write_table(pyarrow.table({"image": images}, schema=schema))
    return path


def write_array(path: Path, count: int, side: int, seed: int = 0) -> Path:
    """An array of `count` images, not encoded."""
    generator = np.random.default_rng(seed)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, side, side, 1))
    for first in range(0, count, 10_000):
        part = images[first : first + 10_000]
        level = generator.normal(110, 20, (len(part), 1, 1, 1))
        part[:] = generator.normal(level, 25, part.shape).clip(0, 255)
    images.flush()
    return path


def write_folder(folder: Path, count: int, side: int, seed: int = 0) -> Path:
    """A folder of `count` PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(encoded(count, side, seed)):
        (folder / f"{number:07}.png").write_bytes(data)
    return folder


def write_model(path: Path, side: int, *, preset: str) -> Path:
    """A calibrated Glow: ``least`` is one step of four channels, ``tiny`` the method's own preset of that name."""
    import dracones

    images = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in encoded(FITTED, side, seed=1)])
    options = {"density": {"steps": 1, "hidden": 4}, "rule": "typicality"} if preset == "least" else {}
    detector = dracones.create("glow", epochs=1, **options)
    detector.fit(images, device="cpu").calibrate(false_alarm_rate=0.1)
    return detector.save(path)
