"""What writes files, one function each: called in a process that is killed, or whose disk is full, half way.

    python writers.py NAME FOLDER CONTENT [KIND N]

KIND is `bytes` (killed at the Nth byte of a file), `full` (the disk is full there), or `fsync` or `rename` (killed just
before the Nth). Prints how many of each a run makes.
"""

import os
import resource
import signal
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

KILLED = 77


def save(folder: Path, content: int) -> None:
    """A detector's file."""
    from dracones.files import storage

    storage.write(folder / "result", {"method": "none", "content": content}, {"w": torch.full((5000,), float(content))})


def checkpoint(folder: Path, content: int) -> None:
    """A training run's checkpoint."""
    from dracones.training.checkpoint import save_checkpoint

    save_checkpoint(folder / "result", {"w": torch.full((5000,), float(content))}, {"content": content})


def text(folder: Path, content: int) -> None:
    """A page or a table, as reports and tables write them."""
    from dracones.files.atomic import write_text

    write_text(folder / "result", f"{content}\n" * 5000)


def report(folder: Path, content: int) -> None:
    """A page and its numbers."""
    from dracones.report import Report

    page = Report(f"Content {content} " * 100)
    page.save_json(page.write(folder / "result.html").with_suffix(".json"))


def table(folder: Path, content: int) -> None:
    """A table of scores."""
    from dracones.report import write_table

    write_table(folder / "result.csv", [{"path": f"{i}.png", "score": float(content)} for i in range(500)])


def maps(folder: Path, content: int) -> None:
    """A heat map: a picture and its numbers."""
    import numpy as np

    from dracones.report import write_maps

    write_maps(folder, "result.png", np.linspace(0, content, 2500, dtype=np.float32).reshape(50, 50))


def cache(folder: Path, content: int) -> None:
    """An entry of the feature cache; a disk that is full is a warning there, and no failure."""
    import warnings
    from types import SimpleNamespace

    from dracones.features import FeatureCache

    class Images:
        preprocess = str(content)
        images = torch.full((4, 3, 32, 32), float(content))

        def __len__(self) -> int:
            return 4

        def fingerprint(self, **_: Any) -> str:
            return "images"

        def batches(self, batch_size: int) -> Any:
            for places in torch.arange(4).split(batch_size):
                yield SimpleNamespace(images=self.images[places], indices=places.numpy())

        def subset(self, indices: Any) -> "Images":
            return self

    class Network(torch.nn.Module):
        name, mean = "network", torch.zeros(1)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (images,)

        def fingerprint(self) -> str:
            return "network"

    warnings.simplefilter("ignore")
    (level,) = FeatureCache(folder).features(Network(), Images()).batch(torch.arange(4))
    assert torch.equal(level, Images.images)


WRITERS = {each.__name__: each for each in (save, checkpoint, text, report, table, maps, cache)}


def _counting(kind: str, at: int, counts: Counter[str]) -> None:
    """Count synchronisations and renames, and end the process just before number `at` of a kind."""
    for name in ("fsync", "rename", "replace"):
        call = getattr(os, name)

        def counted(*arguments: Any, call: Any = call, name: str = name, **options: Any) -> Any:
            what = "fsync" if name == "fsync" else "rename"
            counts[what] += 1
            if what == kind and counts[what] == at:
                os._exit(KILLED)
            return call(*arguments, **options)

        setattr(os, name, counted)


def main() -> None:
    """Write once, as told."""
    name, folder, content, kind, at = (*sys.argv[1:4], *(sys.argv[4:] or ("none", "0")))
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as elsewhere:
        WRITERS[name](Path(elsewhere), 0)  # libraries keep caches of their own, which are not meant here
    if kind in ("bytes", "full"):
        # Python ignores the signal, and a write beyond the limit fails as on a full disk; by default it kills.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kind == "bytes" else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(at), int(at)))
    _counting(kind, int(at), counts)
    WRITERS[name](Path(folder), int(content))
    print(counts["fsync"], counts["rename"])


if __name__ == "__main__":
    main()
