"""What becomes of a promise when confirmed images calibrate, and when groups differ, by simulation.

    python -m benchmarks.monitoring.promises             # 2,000 lines a cell; writes promises.json

Recalibration: a line of good images whose scores are normal; 5 % false alarms are promised, and every round 300 images
more are confirmed: those that passed, or those that a coin chose, their false alarms with them. Groups: three products
of different spread, 99 calibration images each, 5 % promised.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks import records
from benchmarks.provenance import Stopwatch, provenance
from dracones.calibration import Conformal, Groups
from dracones.calibration.truncation import tail_of

HERE = Path(__file__).parent
RATE, COUNT, ROUNDS, AUDIT = 0.05, 300, 5, 0.2
SPREADS = {"narrow": 1.0, "usual": 2.0, "wide": 4.0}


def threshold(scores: np.ndarray) -> float:
    """The one that promises `RATE`."""
    return Conformal().fit(scores).threshold(RATE)


def lines(number: int, seed: int) -> dict[str, Any]:
    """Rates realised after each round, by what was confirmed; and how often a cut sample is noticed."""
    random = np.random.default_rng(seed)
    ways = ("passed alone", "passed, joining the old", "audited, joining the old", "audited alone")
    realised: dict[str, np.ndarray] = {way: np.zeros((number, ROUNDS + 1)) for way in ways}
    for line in range(number):
        start = random.normal(size=COUNT)
        held = dict.fromkeys(ways, start)
        for way in ways:
            realised[way][line, 0] = norm.sf(threshold(start))
        for step in range(1, ROUNDS + 1):
            for way in ways:
                new = random.normal(size=round(COUNT / AUDIT) if "audited" in way else COUNT)
                if "audited" in way:
                    new = new[random.random(len(new)) < AUDIT]
                else:
                    new = new[new <= threshold(held[way])]
                held[way] = np.concatenate([held[way], new]) if "joining" in way else new
                realised[way][line, step] = norm.sf(threshold(held[way]))
    return {
        way: {"mean": rates.mean(axis=0).tolist(), "worst_tenth": np.quantile(rates, 0.9, axis=0).tolist()}
        for way, rates in realised.items()
    }


def noticed(number: int, seed: int) -> list[dict[str, Any]]:
    """How often samples of several sizes are called cut, cut or whole."""
    random = np.random.default_rng(seed)
    rows = []
    for rate, old_count, count in (
        (0.05, 300, 50),
        (0.05, 300, 150),
        (0.05, 300, 300),
        (0.01, 1000, 300),
        (0.01, 1000, 1000),
    ):
        states: dict[str, list[str]] = {"cut": [], "whole": []}
        for _ in range(number):
            old, new = Conformal().fit(random.normal(size=old_count)), random.normal(size=count)
            states["whole"].append(tail_of(old, rate, None, new).state)
            states["cut"].append(tail_of(old, rate, None, new[new <= old.threshold(rate)]).state)
        found = {
            f"{kind}_{state}": float(np.mean([each == state for each in states[kind]]))
            for kind in states
            for state in ("cut", "unknown")
        }
        rows.append({"rate": rate, "old": old_count, "confirmed": count, **found})
    return rows


def groups(number: int, seed: int) -> list[dict[str, Any]]:
    """Rates realised in each group, by one threshold and by one a group."""
    random = np.random.default_rng(seed)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in SPREADS}
    for _ in range(number):
        keys = [name for name in SPREADS for _ in range(99)]
        found = Groups.of(keys, np.concatenate([scale * random.normal(size=99) for scale in SPREADS.values()])).at(RATE)
        one = found.pooled().threshold(RATE)
        for name, scale in SPREADS.items():
            rates[name].append((norm.sf(one / scale), norm.sf(found.thresholds[name] / scale)))
    return [
        {
            "group": name,
            "one_threshold": float(np.mean(values, axis=0)[0]),
            "own_threshold": float(np.mean(values, axis=0)[1]),
            "standard_error": float(np.std(values, axis=0)[1] / number**0.5),
        }
        for name, values in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2000, help="lines a cell")
    parser.add_argument("--output", type=Path, default=HERE / "promises.json")
    arguments = parser.parse_args()
    origin, watch = provenance(), Stopwatch()
    found = {
        "rounds": lines(arguments.number, 0),
        "noticed": noticed(arguments.number, 1),
        "groups": groups(arguments.number, 2),
    }
    settings = {"rate": RATE, "confirmed_each_round": COUNT, "audit_share": AUDIT, "number": arguments.number}
    records.write(arguments.output, {**origin, **watch.read(), **settings, **found}, digits=4)


if __name__ == "__main__":
    main()
