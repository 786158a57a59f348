"""Damaged entries of the feature cache: how many are read in silence, and what looking costs.

python -m benchmarks.robustness.fuzz_cache --count 1000 -o benchmarks/robustness/results/cache_entries.json
"""

import argparse
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write
from benchmarks.robustness.effort import effort
from dracones.features import FeatureCache, entry

FAILURES = ("silent", "bare", "unrepaired", "slow", "greedy")
_MEGABYTES = 64


class Images:
    """Images in memory, as the cache wants them."""

    preprocess = "none"

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self, **_: Any) -> str:
        return "images"

    def batches(self, batch_size: int) -> Any:
        for places in torch.arange(len(self)).split(batch_size):
            yield SimpleNamespace(images=self.images[places], indices=places.numpy())

    def subset(self, indices: Any) -> "Images":
        return Images(self.images[torch.as_tensor(indices)])


class Pooling(torch.nn.Module):
    """Stands for a backbone of two levels."""

    name = "pooling"
    mean = torch.zeros(1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pool = torch.nn.functional.avg_pool2d
        return pool(images, 2), pool(images, 4)

    def fingerprint(self) -> str:
        return "pooling"


def damage(folder: Path, random_: random.Random) -> str:
    """Alter one file of an entry; says how."""
    path = random_.choice(sorted(folder.iterdir()))
    data = bytearray(path.read_bytes())
    kind = random_.choice(
        ("flip", "zeroed", "noise", "truncated", "appended", "deleted", "emptied", "digit", "swapped")
    )
    place = random_.randrange(len(data))
    if kind == "flip":
        data[place] ^= 1 << random_.randrange(8)
    elif kind in ("zeroed", "noise"):
        end = min(len(data), place + random_.randrange(1, 2000))
        data[place:end] = bytes(end - place) if kind == "zeroed" else random_.randbytes(end - place)
    elif kind == "truncated":
        del data[place:]
    elif kind == "appended":
        data += random_.randbytes(random_.randrange(1, 50))
    elif kind == "emptied":
        data.clear()
    elif kind == "digit":
        digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
        data[random_.choice(digits)] = ord(random_.choice("0123456789"))
    elif kind == "swapped":
        data = bytearray(random_.choice(sorted(folder.iterdir())).read_bytes())
    if kind == "deleted":
        path.unlink()
    else:
        path.write_bytes(data)
    return f"{kind} {path.name}"


def fuzz(count: int, seed: int = 0) -> dict[str, Any]:
    """Outcomes of `count` damaged entries.

    `silent` ones read as other numbers without a word, `bare` ones end in an error, `unrepaired` ones stay damaged,
    `slow` ones take more than five CPU seconds and `greedy` ones grow the process by more than 64 MB.
    """
    outcomes: Counter[str] = Counter()
    failures: dict[str, list[str]] = {name: [] for name in FAILURES}
    images, network = Images(torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))), Pooling()
    with tempfile.TemporaryDirectory() as temporary:
        cache, kept = FeatureCache(Path(temporary) / "cache"), Path(temporary) / "kept"
        whole = cache.features(network, images)
        wanted = [np.array(level) for level in whole.levels]
        place = cache.folder / whole.fingerprint()
        shutil.copytree(place, kept)
        for number in range(seed, seed + count):
            shutil.rmtree(place)
            shutil.copytree(kept, place)
            label = f"seed {number}: {damage(place, random.Random(number))}"
            touched = _differs(place, kept)
            entry._verified.clear()  # as a new process
            with effort() as spent:
                problem, said = _read(lambda: cache.features(network, images), wanted)
            spent.note(label, failures["slow"], failures["greedy"], megabytes=_MEGABYTES)
            if problem is None and said and _differs(place, kept):
                problem = "unrepaired"
            if problem is not None:
                failures[problem.partition(":")[0]].append(f"{label} {problem}")
            else:
                found = "said and computed anew" if said else "damaged and the same" if touched else "untouched"
                outcomes[found] += 1
    return {"entries": count, "seed": seed, "outcomes": dict(sorted(outcomes.items())), **failures}


def _read(features: Callable[[], Any], wanted: list[Any]) -> tuple[str | None, bool]:
    """What went wrong, and whether a warning said that the entry was damaged."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            levels = features().levels
            same = all(np.array_equal(*pair) for pair in zip(levels, wanted, strict=True))
        except Exception as error:
            return f"bare: {type(error).__name__}: {error}", bool(said)
    return None if same else "silent", bool(said)


def _differs(place: Path, kept: Path) -> bool:
    names = [each.name for each in kept.iterdir()]
    return any(not (place / n).exists() or (place / n).read_bytes() != (kept / n).read_bytes() for n in names)


def cost(megabytes: int = 512) -> dict[str, float]:
    """Seconds to open a large entry the first and the second time in a process, and to read it through once."""
    rows, shape = megabytes, (16, 16, 2048)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "entry"
        folder.mkdir()
        block = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
        with entry.EntryWriter(folder, [shape], np.dtype("f2"), rows) as writer:
            for _ in range(rows):
                writer.write([block])
            writer.finish()
        seconds = {}
        for what in ("first opening", "second opening"):
            started = time.perf_counter()
            stored = entry.open_entry(folder)
            seconds[what] = time.perf_counter() - started
        started = time.perf_counter()
        for _ in stored.chunks(16):
            pass
        seconds["one epoch of reading"] = time.perf_counter() - started
    return {"megabytes": megabytes, **seconds}


def main() -> None:
    """Fuzz, measure, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    record, watch = provenance(), Stopwatch()
    command = f"python -m benchmarks.robustness.fuzz_cache --count {arguments.count} --seed {arguments.seed}"
    record |= {"command": command, **fuzz(arguments.count, arguments.seed), "cost_seconds": cost(), **watch.read()}
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
