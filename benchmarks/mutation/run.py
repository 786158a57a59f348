"""Do the tests see a change of the code? Mutants of four rooms, each run against the tests of its room.

    python -m benchmarks.mutation.run [--rooms calibration rules] [--sample 40] [--seed 0] [--minutes 30]

The mutants are mutmut's: a comparison turned, a constant moved, a call's argument dropped. A sample is drawn over all
lines of the rooms; each mutant is written into a copy of `src`, and those tests of its room run on it that run one of
the changed lines (all, where none is known to, as of what runs when a module is loaded). A mutant that no test fails on
has survived. Messages of errors are left alone: a test of every word would test nothing. The tests must pass on the
unchanged copy first. Writes results.json beside this file; survivors stand in it with their difference.
"""

import argparse
import difflib
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.provenance import ROOT, Stopwatch, provenance
from benchmarks.records import write

HERE = Path(__file__).parent
TESTS = {
    "calibration": ("tests/calibration",),
    "detectors": ("tests/detectors",),
    "rules": ("tests/rules",),
    "training": ("tests/training",),
}
UNSEEN = ("raise ", "warnings.warn", '"""', 'f"', "import ", "description=")
"""Lines whose mutants change a message or nothing."""


_MANY = 60
"""Tests above which naming each is no faster than running all."""


class Mutant(NamedTuple):
    """One changed file."""

    room: str
    path: str
    code: str
    difference: str

    def lines(self) -> set[int]:
        """Numbers of the lines of the original that it changes."""
        spans = re.findall(r"^@@ -(\d+)(?:,(\d+))? ", self.difference, flags=re.MULTILINE)
        return {line for start, count in spans for line in range(int(start), int(start) + max(1, int(count or 1)))}


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


def passes(tests: Iterable[str], copy: Path, limit: float, *options: str) -> bool:
    """Whether tests pass on the copy; tests that hang have noticed something too."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment["COVERAGE_FILE"] = str(copy.parent / "coverage")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *options, *tests]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Seen:
    """Which tests of a room run which lines of the copy, from one run of all of them, that has to pass."""

    def __init__(self, room: str, copy: Path) -> None:
        from coverage import CoverageData

        self.all, self.copy = TESTS[room], copy
        started = time.monotonic()
        options = (f"--cov={copy}", "--cov-context=test", "--cov-report=", "--cov-fail-under=0")
        if not passes(self.all, copy, 3600, *options):
            raise SystemExit(f"the tests of {room} fail without any mutant")
        self.limit = 60 + 5 * (time.monotonic() - started)
        self._data = CoverageData(str(copy.parent / "coverage"))
        self._data.read()
        self._by_file: dict[str, dict[int, list[str]]] = {}

    def tests_of(self, mutant: Mutant) -> tuple[str, ...]:
        """Names of those that run a line of the mutant's, or the folders of all."""
        file = str(self.copy / Path(mutant.path).relative_to("src"))
        if file not in self._by_file:
            self._by_file[file] = self._data.contexts_by_lineno(file)
        names: set[str] = set()
        for line in mutant.lines():
            contexts = self._by_file[file].get(line, [""])
            if "" in contexts:  # run by no test, or when the module was loaded
                return self.all
            names |= {context.rpartition("|")[0] for context in contexts}
        return tuple(sorted(names)) if 0 < len(names) <= _MANY else self.all


def measure(rooms: list[str], sample: int, seed: int, minutes: float) -> dict[str, Any]:
    """Killed and surviving mutants of a sample, as far as the time allows."""
    files = [(room, path) for room in rooms for path in sorted((ROOT / "src/dracones" / room).glob("*.py"))]
    began, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        seen = {room: Seen(room, copy) for room in rooms}
        for mutant in itertools.islice(mutants(files, seed), sample):
            if time.monotonic() - began > 60 * minutes:
                break
            target, tests = copy / Path(mutant.path).relative_to("src"), seen[mutant.room].tests_of(mutant)
            original = target.read_text()
            target.write_text(mutant.code)
            survived = passes(tests, copy, seen[mutant.room].limit)
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
