"""What writes files, one function each, and a process that runs one and is killed, or finds its disk full."""

import os
import resource
import signal
from collections import Counter
from pathlib import Path
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


def run(name: str, folder: Path, content: int, kind: str = "none", at: int = 0) -> tuple[int, str]:
    """Write once, in a process of its own; its exit code (negative: a signal), and what it said.

    Args:
        name: of the writer.
        folder: to write in.
        content: what is written, as a number.
        kind: `bytes`: killed at byte `at` of a file; `full`: the disk is full there; `fsync`, `rename`: killed just
            before number `at`; `none`: left alone, and says how many of the last two it made.
        at: where.
    """
    said = folder.parent / "said"
    said.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            counts: Counter[str] = Counter()
            if kind in ("bytes", "full"):
                # Python ignores the signal, and a write beyond the limit fails as on a full disk; by default it kills.
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kind == "bytes" else signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (at, resource.RLIM_INFINITY))
            _counting(kind, at, counts)
            WRITERS[name](folder, content)
            if kind == "none":
                said.write_text(f"{counts['fsync']} {counts['rename']}")
            code = 0
        except BaseException as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            said.write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said.read_text() if said.exists() else ""
