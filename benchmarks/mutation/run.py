"""Do the tests see a change of the code? Mutants of four rooms, each run against the tests of its room.

    python -m benchmarks.mutation.run [--rooms calibration rules] [--sample 40] [--seed 0] [--minutes 30]

The mutants are mutmut's: a comparison turned, a constant moved, a call's argument dropped. A sample is drawn over all
lines of the rooms; each mutant is written into a copy of `src`, the tests of its room run on it, and a mutant that no
test fails on has survived. Messages of errors are left alone: a test of every word would test nothing. The tests must
pass on the unchanged copy first. Writes results.json beside this file; survivors stand in it with their difference.
"""

import argparse
import difflib
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.provenance import ROOT, Stopwatch, provenance
from benchmarks.records import write

HERE = Path(__file__).parent
TESTS = {
    "calibration": ("tests/calibration",),
    "detectors": ("tests/detectors", "tests/cli"),
    "rules": ("tests/rules",),
    "training": ("tests/training",),
}
UNSEEN = ("raise ", "warnings.warn", '"""', 'f"', "import ", "description=")
"""Lines whose mutants change a message or nothing."""


class Mutant(NamedTuple):
    """One changed file."""

    room: str
    path: str
    code: str
    difference: str


def mutants(files: list[tuple[str, Path]], seed: int) -> Iterator[Mutant]:
    """Every mutant of some files that changes what they do, in random order; made when it is asked for."""
    import libcst
    from mutmut.mutation.file_mutation import create_mutations, deep_replace

    places = []
    for room, path in files:
        module, mutations, _, _ = create_mutations(str(path), path.read_text())
        places += [(room, path, module, mutation) for mutation in mutations]
    random.Random(seed).shuffle(places)
    print(f"{len(places)} mutants before those of messages are left out", flush=True)
    for room, path, module, mutation in places:
        changed = deep_replace(module, mutation.original_node, mutation.mutated_node)
        if not isinstance(changed, libcst.Module) or changed.code == module.code:
            continue
        lines = difflib.unified_diff(module.code.splitlines(), changed.code.splitlines(), lineterm="", n=0)
        difference = [line for line in lines if not line.startswith(("---", "+++"))]
        if not any(word in line for line in difference for word in UNSEEN):
            yield Mutant(room, path.relative_to(ROOT).as_posix(), changed.code, "\n".join(difference))


def passes(room: str, copy: Path, limit: float) -> bool:
    """Whether the room's tests pass on the copy; tests that hang have noticed something too."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS[room]]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def measure(rooms: list[str], sample: int, seed: int, minutes: float) -> dict[str, Any]:
    """Killed and surviving mutants of a sample, as far as the time allows."""
    files = [(room, path) for room in rooms for path in sorted((ROOT / "src/dracones" / room).glob("*.py"))]
    began, limits, rows = time.monotonic(), {}, []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        for mutant in itertools.islice(mutants(files, seed), sample):
            if time.monotonic() - began > 60 * minutes:
                break
            if mutant.room not in limits:
                started = time.monotonic()
                if not passes(mutant.room, copy, 3600):
                    raise SystemExit(f"the tests of {mutant.room} fail without any mutant")
                limits[mutant.room] = 60 + 5 * (time.monotonic() - started)
            target = copy / Path(mutant.path).relative_to("src")
            original = target.read_text()
            target.write_text(mutant.code)
            survived = passes(mutant.room, copy, limits[mutant.room])
            target.write_text(original)
            rows.append({"path": mutant.path, "survived": survived, "difference": mutant.difference})
            print("SURVIVED" if survived else "killed", mutant.path, mutant.difference, flush=True)
    return {"rooms": rooms, "seed": seed, "tried": len(rows), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rooms", nargs="+", choices=list(TESTS), default=list(TESTS))
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="no new mutant is begun after this")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    watch = Stopwatch()
    origin = provenance()
    found = measure(arguments.rooms, arguments.sample, arguments.seed, arguments.minutes)
    survived = [row for row in found["rows"] if row["survived"]]
    found["killed_share"] = 1 - len(survived) / max(1, found["tried"])
    write(arguments.out, {**origin, **watch.read(), **found})
    print(f"{found['tried'] - len(survived)} of {found['tried']} killed")


if __name__ == "__main__":
    main()
