"""PatchCore's choice at the size of a factory: CPU time and peak memory for thousands of images of 256 pixels.

    python -m benchmarks.inspection.memory_at_size --images 7000 -o benchmarks/inspection/memory_at_size.json

What a fit does after its features stand in the cache: reads the feature maps of all images and chooses which patches
to keep. The maps are drawn at random in the shape that ResNet-18 gives, image by image, as neither time nor memory
depends on what they hold; the backbone's own time is measured on some images and multiplied.
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write
from dracones.features import FeatureDataset
from dracones.methods import build, method_class
from dracones.training import Silent

_SIDE, _TIMED = 256, 16


class Drawn(FeatureDataset):
    """Feature maps that are drawn when asked for; the same for the same image."""

    def __init__(self, count: int, shapes: list[tuple[int, int, int]]) -> None:
        self.count, self.shapes = count, shapes

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Maps of the images at `indices`."""
        generator = torch.Generator().manual_seed(int(indices[0]))
        return tuple(torch.rand(len(indices), *shape, generator=generator) for shape in self.shapes)

    def fingerprint(self) -> str:
        """Nobody caches them."""
        return f"drawn {self.count}"


class Watch(Silent):
    """Says on standard error how far the choice is."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0

    def start(self, total: int | None, what: str) -> None:
        """A piece of work begins."""
        super().start(total, what)
        self.done, self.total = 0, total or 0

    def advance(self, n: int = 1, **numbers: float) -> None:
        """Passes that are done."""
        super().advance(n, **numbers)
        self.done += n
        if self.done % 4096 == 0:
            print(f"{self.done} of {self.total} passes, {_peak():.0f} MB", file=sys.stderr, flush=True)


def measure(images: int, backbone: str) -> dict[str, Any]:
    """Seconds by part and peak memory of a fit's statistics."""
    method = method_class("patchcore")(backbone=backbone, weights="random", cache=False)
    build(method, (3, _SIDE, _SIDE))
    method.eval()
    example = torch.rand(_TIMED, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        method.extractor(example[:2])
        started = time.process_time()
        maps = method.extractor(example)
        backbone_seconds = (time.process_time() - started) / _TIMED * images
    shapes = [tuple(level.shape[1:]) for level in maps]
    before = _peak()
    started = time.process_time()
    with torch.no_grad():
        method.learn(Drawn(images, shapes), torch.Generator().manual_seed(0), Watch())
    return {
        "images": images,
        "patches": images * shapes[0][1] * shapes[0][2],
        "put_forward": method.config.put_forward,
        "kept": len(method.memory),
        "cpu_seconds_of": {
            "backbone, extrapolated": round(backbone_seconds, 1),
            "reading and choosing": round(time.process_time() - started, 1),
        },
        "peak_megabytes": round(_peak()),
        "peak_megabytes_before": round(before),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=7000)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record, watch = provenance(), Stopwatch()
    command = (
        f"python -m benchmarks.inspection.memory_at_size --images {arguments.images} --backbone {arguments.backbone}"
    )
    record |= {"command": command, **measure(arguments.images, arguments.backbone), **watch.read()}
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
