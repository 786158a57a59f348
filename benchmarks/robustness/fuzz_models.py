"""Thousands of damaged, edited and forged model files: how many are accepted in silence, or refused without a name.

python -m benchmarks.robustness.fuzz_models --count 10000 -o benchmarks/robustness/results/model_files.json
"""

import argparse
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.provenance import Stopwatch, provenance
from benchmarks.records import text, write
from benchmarks.robustness.effort import effort, peak_megabytes
from benchmarks.robustness.mutations import damaged, forged, rewritten
from benchmarks.robustness.subjects import Subject, make

_MEGABYTES = 200.0


@dataclass
class Tally:
    """What became of the files.

    Attributes:
        outcomes: counts of refused (by name), unchanged (every score the same) and consistent (forged, loads as another
            detector whose promise its own scores bear out).
        silent: damaged files that load and score otherwise.
        unclean: files refused by another error than ValueError or FileNotFoundError, or without their name.
        slow: files that took more than five CPU seconds.
        greedy: files that made the process grow by more than 200 MB.
        slowest: CPU seconds of the slowest file.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    greedy: list[str] = field(default_factory=list)
    slowest: float = 0.0


def try_one(subject: Subject, mutant: Path, seed: int, tally: Tally) -> None:
    """Make one mutant of a detector's file from a seed, load it, score, and count what came of it."""
    random_ = random.Random(seed)
    whole = subject.path.read_bytes()
    way = random_.choices(("damaged", "forged", "rewritten"), (5, 4, 1))[0]
    if way == "forged":
        what = forged(subject.path, mutant, random_)
    else:
        what, data = (damaged if way == "damaged" else rewritten)(whole, random_)
        mutant.write_bytes(data)
        if data == whole:
            way = "untouched"
    label = f"{subject.name} seed {seed}: {way}, {what}"
    with effort() as spent:
        _judge(subject, mutant, way, label, tally)
    tally.slowest = max(tally.slowest, spent.seconds)
    spent.note(label, tally.slow, tally.greedy, megabytes=_MEGABYTES)


def _judge(subject: Subject, mutant: Path, way: str, label: str, tally: Tally) -> None:
    try:
        detector = subject.load(mutant)
    except (ValueError, FileNotFoundError) as error:
        tally.outcomes["refused"] += 1
        if str(mutant) not in str(error):
            tally.unclean.append(f"{label}: {type(error).__name__} without the file's name: {str(error)[:200]}")
        return
    except BaseException as error:
        tally.unclean.append(f"{label}: {type(error).__name__}: {str(error)[:200]}")
        return
    try:
        seen = detector.predict(subject.images, maps=False)
        same = np.array_equal(seen.scores, subject.scores) and np.array_equal(seen.p_values, subject.p_values)
    except (ValueError, RuntimeError) as error:
        if way != "forged" or not isinstance(error, ValueError):
            tally.unclean.append(f"{label}: scoring: {type(error).__name__}: {str(error)[:200]}")
        else:
            tally.outcomes["refused when scoring"] += 1
        return
    except BaseException as error:
        traceback.print_exc(limit=-4)
        tally.unclean.append(f"{label}: scoring: {type(error).__name__}: {str(error)[:200]}")
        return
    if same:
        tally.outcomes["unchanged" if way != "damaged" else "damaged and unchanged"] += 1
    elif way != "forged":
        tally.silent.append(label)
    elif detector.threshold is not None and detector.threshold not in detector.calibration.scores:
        tally.silent.append(f"{label}: a threshold that no score bears out")
    else:
        tally.outcomes["consistent"] += 1


def fuzz(subjects: list[Subject], count: int, seed: int = 0, *, aloud: bool = False) -> Tally:
    """`count` mutants, the subjects in turn; aloud, how far it is and what failed is said on standard error."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(count):
            try_one(subjects[i % len(subjects)], Path(folder) / f"mutant{i % 3}.safetensors", seed + i, tally)
            if aloud and (i + 1) % 500 == 0:
                failed = tally.silent + tally.unclean + tally.slow + tally.greedy
                print(f"{i + 1}: {dict(tally.outcomes)}", *failed, sep="\n", file=sys.stderr, flush=True)
    return tally


def main() -> None:
    """Fit one detector of each kind, fuzz, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="kinds of detectors")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    record, watch = provenance(), Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        subjects = make(Path(folder), tuple(arguments.only) if arguments.only else None)
        before = peak_megabytes()
        tally = fuzz(subjects, arguments.count, arguments.seed, aloud=True)
    record |= {
        "command": f"python -m benchmarks.robustness.fuzz_models --count {arguments.count} --seed {arguments.seed}",
        "files": arguments.count,
        "detectors": [subject.name for subject in subjects],
        "outcomes": dict(sorted(tally.outcomes.items())),
        **{what: getattr(tally, what) for what in ("silent", "unclean", "slow", "greedy")},
        "slowest_seconds": tally.slowest,
        "peak_growth_megabytes": peak_megabytes() - before,
        **watch.read(),
    }
    print(text(record))
    if arguments.output is not None:
        write(arguments.output, record)


if __name__ == "__main__":
    main()
