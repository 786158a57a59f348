"""Thousands of damaged image and array files: what is read, what is refused by name, what it costs.

python -m benchmarks.robustness.fuzz_images --count 10000 -o benchmarks/robustness/results/images.json
"""

import argparse
import multiprocessing
import pickle
import random
import resource
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write
from benchmarks.robustness.effort import effort
from benchmarks.robustness.image_files import damaged, whole_files
from dracones.images import Limits, open_images
from dracones.images.masks import read_mask

_MEGABYTES, _PART = 64, 500
_LIMITS = Limits(max_pixels=2**20, max_decode_bytes=2**24, max_array_bytes=2**24, max_file_bytes=2**24)
"""Small, so that whoever passes them shows: 16 MiB may be decoded, and 64 MB are noticed."""


@dataclass
class Tally:
    """What became of the files.

    Attributes:
        outcomes: counts of read and refused, by kind of file.
        silent: files that give no image by the contract (shape, type, range) or more than the limits allow.
        bare: files refused by an error that is neither a refusal nor names the file.
        noisy: files that made a library speak: warnings that reach the terminal.
        slow: files that took more than five CPU seconds.
        greedy: files that made the process grow by more than 64 MB.
        crashed: parts of the run whose process died.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    noisy: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    greedy: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another tally's files too."""
        self.outcomes += other.outcomes
        for name in FAILURES:
            getattr(self, name).extend(getattr(other, name))


FAILURES = ("silent", "bare", "noisy", "slow", "greedy", "crashed")


def try_one(name: str, whole: bytes, folder: Path, seed: int, tally: Tally) -> None:
    """Damage one file from a seed, read it as a user would, and count what came of it."""
    how, data = damaged(whole, random.Random(seed))
    path = folder / name.replace(".", "_") / name  # alone: sets of several files are told by their names
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    label = f"seed {seed}: {name}, {how}"
    with effort() as spent, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outcome = _read(path, label, tally, as_mask=seed % 8 == 0)
    tally.outcomes[f"{name.partition('.')[2] or 'cifar'}: {outcome}"] += 1
    tally.noisy += [f"{label}: {warning.message}" for warning in said]
    spent.note(label, tally.slow, tally.greedy, megabytes=_MEGABYTES)


def _read(path: Path, label: str, tally: Tally, *, as_mask: bool) -> str:
    try:
        if as_mask and path.suffix[1:] in ("png", "jpg", "bmp", "webp", "gif", "tif", "pgm", "ppm"):
            problem = _problem_of_mask(read_mask(path, _LIMITS))
        else:
            source = path if path.suffix else f"{path.parent}:test"
            images = open_images(source, limits=_LIMITS, strict=True)
            problem = next(filter(None, (_problem(images.read(i)) for i in range(min(len(images), 8)))), None)
    except (ValueError, TypeError) as error:
        if path.name not in str(error):
            tally.bare.append(f"{label}: without the file's name: {str(error)[:200]}")
        return "refused"
    except BaseException as error:
        tally.bare.append(f"{label}: {type(error).__name__}: {str(error)[:200]}")
        return "bare"
    if problem is not None:
        tally.silent.append(f"{label}: {problem}")
    return "read"


def _problem(image: torch.Tensor) -> str | None:
    if image.ndim != 3 or image.dtype != torch.float32:
        return f"an image of shape {tuple(image.shape)} and type {image.dtype}"
    if image.shape[1] * image.shape[2] > _LIMITS.max_pixels:
        return f"{tuple(image.shape)} is more than the limit"
    if image.numel() == 0 or not bool(((image >= 0) & (image <= 1)).all()):
        return "values outside [0, 1]"
    return None


def _problem_of_mask(mask: np.ndarray) -> str | None:
    return None if mask.dtype == np.bool_ and mask.ndim == 2 and mask.size else f"a mask of {mask.shape}, {mask.dtype}"


def fuzz(count: int, seed: int = 0, *, apart: bool = False) -> Tally:
    """`count` damaged files, the kinds in turn; apart, in processes of their own, whose death is counted."""
    tally = Tally()
    for start in range(0, count, _PART):
        places = range(start, min(start + _PART, count))
        tally.add(_in_a_process(places, seed) if apart else _part(places, seed))
        if apart:
            failed = [line for name in FAILURES for line in getattr(tally, name)]
            print(
                f"{places.stop}: {sum(tally.outcomes.values())} judged", *failed, sep="\n", file=sys.stderr, flush=True
            )
    return tally


def _part(places: range, seed: int) -> Tally:
    tally, files = Tally(), whole_files()
    names = sorted(files)
    with tempfile.TemporaryDirectory() as folder:
        for i in places:
            name = names[i % len(names)]
            try_one(name, files[name], Path(folder), seed + i, tally)
    return tally


def _in_a_process(places: range, seed: int) -> Tally:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "tally"
        process = multiprocessing.get_context("fork").Process(target=_write_part, args=(places, seed, result))
        process.start()
        process.join()
        if process.exitcode:
            return Tally(crashed=[f"seeds {seed + places.start} to {seed + places.stop - 1}: exit {process.exitcode}"])
        found: Tally = pickle.loads(result.read_bytes())  # noqa: S301 (our own, a moment ago)
        return found


def _write_part(places: range, seed: int, result: Path) -> None:
    result.write_bytes(pickle.dumps(_part(places, seed)))


def main() -> None:
    """Fuzz, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record, watch = provenance(), Stopwatch()
    tally = fuzz(arguments.count, arguments.seed, apart=True)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    record |= {
        "command": f"python -m benchmarks.robustness.fuzz_images --count {arguments.count} --seed {arguments.seed}",
        "files": arguments.count,
        "kinds": sorted(whole_files()),
        "outcomes": dict(sorted(tally.outcomes.items())),
        **{name: getattr(tally, name) for name in FAILURES},
        "peak_megabytes": round(children.ru_maxrss / 1024),
        **watch.read(),
        "cpu_seconds": round(children.ru_utime + children.ru_stime, 1),
    }
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
