"""A tiny model, shards of tiny images, and scorers that die at will: importable by workers of a cluster."""

import io
import os
import signal
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dracones.cli.models import load_model, open_data
from dracones.distributed.shards import ShardScorer


def write_model(folder):
    import dracones

    pixels = np.random.default_rng(0).normal(90, 20, (60, 8, 8)).clip(0, 255).astype(np.uint8)
    detector = dracones.create("glow", epochs=1, rule="typicality", density={"steps": 1, "hidden": 4})
    detector.fit(pixels, device="cpu").calibrate(false_alarm_rate=0.3)
    return detector.save(folder / "model.safetensors")


def write_shards(folder, count=6, images=10):
    folder.mkdir()
    for shard in range(count):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for i in range(images):
                pixels = np.random.default_rng((shard, i)).normal(90, 25, (8, 8)).clip(0, 255).astype(np.uint8)
                stream = io.BytesIO()
                Image.fromarray(pixels).save(stream, "PNG")
                data = b"broken" if (shard, i) == (1, 3) else stream.getvalue()
                info = tarfile.TarInfo(f"{shard}-{i}.png")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder


def scorer(out, model):
    opened = partial(open_data, model, strict=False)
    return ShardScorer(load_model(model), opened, Path(out), ".csv", 4)


class Dying(ShardScorer):
    """Kills its process half-way through some shards, as often as there are files in a folder to take away."""

    def _rows(self, images, places, beside, tally):
        for number, row in enumerate(super()._rows(images, places, beside, tally)):
            lives = self.folder.parent / "lives" / images.name_of_source
            if number == 5 and lives.exists() and any(lives.iterdir()):
                next(lives.iterdir()).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            yield row


def dying(out, model):
    made = scorer(out, model)
    return Dying(made.detector, made.open_images, made.folder, made.kind, made.batch_size)


def lives(folder, **shards):
    for name, count in shards.items():
        place = folder / "lives" / f"{name[1:]}.tar"
        place.mkdir(parents=True)
        for i in range(count):
            (place / str(i)).touch()
